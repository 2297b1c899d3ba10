"""torch-fidelity's own extractors: which of their layers we take, and where their weights come from."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.feature_extractor_clip import MODEL_METADATA as CLIP
from torch_fidelity.feature_extractor_clip import MODEL_URLS as CLIP_URLS
from torch_fidelity.feature_extractor_clip import FeatureExtractorCLIP
from torch_fidelity.feature_extractor_dinov2 import MODEL_METADATA as DINOV2
from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

from pipeline.errors import ChorusError, PassingError
from pipeline.exits import is_full
from pipeline.files import file_hash

DINOV2_CODE = "facebookresearch/dinov2"
DINOV2_COMMIT = "7764ea0f912e53c92e82eb78a2a1631e92725fc8"  # what is downloaded runs, so not whatever is newest
# SHA-256 by file, of those whose publishers give none, or its beginning alone.
DIGESTS = {
    "weights-inception-2015-12-05-6726825d.pth": "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "vgg16-397923af.pth": "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    "dinov2_vits14_pretrain.pth": "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    "dinov2_vitb14_pretrain.pth": "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    "dinov2_vitl14_pretrain.pth": "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    "dinov2_vitg14_pretrain.pth": "baf8467e50af277596bbbafa06887c177ee899ab46033649c383577d7e9309d3",
}


class DinoV2FromFile(FeatureExtractorDinoV2):
    """torch-fidelity's DINOv2 extractor with weights from a file, which it does not take itself.

    The network's code is one commit of DINOv2's own repository, through torch.hub: from its cache where it is there,
    else downloaded.
    """

    def __init__(self, name: str, features_list: list[str], feature_extractor_weights_path: str, **_: Any) -> None:
        FeatureExtractorBase.__init__(self, name, features_list)
        self.feature_extractor_internal_dtype = torch.float32
        self.model = torch.hub.load(
            # torch.hub knows the ends of branches alone, so it cannot look for the commit first.
            f"{DINOV2_CODE}:{DINOV2_COMMIT}",
            DINOV2[name],
            pretrained=False,
            verbose=False,
            skip_validation=True,
        )
        self.model.load_state_dict(torch.load(feature_extractor_weights_path, map_location="cpu", weights_only=True))


@dataclass(frozen=True)
class Published:
    """A published network: its class, the layers of features and class scores that we take, its weights.

    given: the weights' SHA-256 where it is not in `DIGESTS`. scripted: they are a TorchScript archive.
    """

    build: Callable[..., Any]
    layer: str
    logits: str | None
    url: str
    given: str = ""
    scripted: bool = False

    @property
    def file(self) -> str:
        return self.url.rsplit("/", 1)[1]

    @property
    def digest(self) -> str:
        return self.given or DIGESTS[self.file]


PUBLISHED = {
    "inception-v3-compat": Published(FeatureExtractorInceptionV3, "2048", "logits_unbiased", URL_INCEPTION_V3),
    "vgg16": Published(
        FeatureExtractorVGG16, "fc2_relu", None, "https://download.pytorch.org/models/vgg16-397923af.pth"
    ),
    **{
        name: Published(
            DinoV2FromFile, "dinov2", None, f"https://dl.fbaipublicfiles.com/dinov2/{model}/{model}_pretrain.pth"
        )
        for name, model in DINOV2.items()
    },
    **{
        name: Published(FeatureExtractorCLIP, "clip", None, CLIP_URLS[name], CLIP[name]["hash"], scripted=True)
        for name in CLIP
    },
}


def find_weights(name: str, given: Path | None) -> Path:
    """Return the file of a published network's weights: the given one, torch.hub's cached one, or its download.

    What was downloaded, now or earlier, has to be the published file. A file that is named in params.yaml may hold
    other tensors, but a TorchScript archive is code. Raises `ChorusError` that says which file to put where.
    """
    published = PUBLISHED[name]
    cached = Path(torch.hub.get_dir()) / "checkpoints" / published.file
    remedy = (
        f"get {published.file} from {published.url}, then name it in params.yaml under reference.weights.{name}, "
        f"or put it at {cached}"
    )
    if given is not None:
        if not given.is_file():
            raise ChorusError(f"reference.weights.{name}: there is no file {given}; {remedy}")
        return checked(given, published, remedy) if published.scripted else given
    if not cached.is_file():
        cached.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(published.url, str(cached), hash_prefix=published.digest, progress=False)
        except (URLError, OSError, RuntimeError) as error:
            if is_full(error):
                raise
            # A RuntimeError says that what came is not the published file, an HTTP status below 500 that there is none.
            passing = isinstance(error, OSError) and getattr(error, "code", 500) >= 500
            raise (PassingError if passing else ChorusError)(
                f"the weights of extractor '{name}' could not be downloaded ({error}); {remedy}"
            ) from None
    return checked(cached, published, remedy)


def checked(path: Path, published: Published, remedy: str) -> Path:
    """Return `path`; raises `ChorusError` where its SHA-256 is not the published one."""
    if file_hash(path) != published.digest:
        raise ChorusError(f"{path} is not {published.file} as published: its SHA-256 is another one; {remedy}")
    return path


def load_published(name: str, weights: Path) -> torch.nn.Module:
    """Build torch-fidelity's extractor on a file of weights, in evaluation mode on the CPU.

    Raises `ChorusError` for a file that holds other weights, or anything besides tensors.
    """
    published = PUBLISHED[name]
    layers = [published.layer, *([published.logits] if published.logits else [])]
    try:
        if not published.scripted:
            # torch-fidelity unpickles the file without restrictions, so anything but tensors is turned away here.
            torch.load(weights, map_location="cpu", weights_only=True)
        module: torch.nn.Module = published.build(name, layers, feature_extractor_weights_path=str(weights))
    except URLError as error:
        checkout = Path(torch.hub.get_dir()) / f"{DINOV2_CODE.replace('/', '_')}_{DINOV2_COMMIT}"
        raise PassingError(
            f"the code of extractor '{name}' could not be downloaded ({error.reason}); "
            f"put commit {DINOV2_COMMIT} of https://github.com/{DINOV2_CODE} at {checkout}"
        ) from None
    except (pickle.UnpicklingError, RuntimeError, KeyError, AttributeError, ValueError, EOFError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ChorusError(
            f"{weights} does not hold the weights of extractor '{name}' ({first}); "
            f"expected the file {published.file} of {published.url}"
        ) from None
    return module.requires_grad_(False).eval()
