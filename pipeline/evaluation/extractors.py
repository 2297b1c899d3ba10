"""Extractors: networks that turn images into features, all of them torch-fidelity feature extractors.

Ours are registered with torch-fidelity under names that carry the hash of their weights, because it caches by name.
"""

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_fidelity import register_feature_extractor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from pipeline.errors import ChorusError
from pipeline.evaluation.features import Features
from pipeline.evaluation.networks import NetworkConfig, to_float
from pipeline.evaluation.pretrained import PUBLISHED, find_weights, load_published
from pipeline.evaluation.saved import load_network
from pipeline.files import write_json
from pipeline.weights import SCHEMA, read_content, save_state

FEATURES, LOGITS = "features", "logits"


class OwnExtractor(FeatureExtractorBase):
    """One of our networks as a torch-fidelity extractor of the layer "features"; `register` makes subclasses of it."""

    network: nn.Module
    channels: int

    def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
        super().__init__(name, features_list)
        self.own = copy.deepcopy(self.network)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map uint8 B×3×S×S to the requested layers; grey networks read the first of three equal channels."""
        features, logits = self.own(to_float(images[:, : self.channels]))
        found = {FEATURES: features, LOGITS: logits}
        return tuple(found[layer].float() for layer in self.features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return (FEATURES,)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return FEATURES

    @staticmethod
    def can_be_compiled() -> bool:
        return False


class OwnClassifier(OwnExtractor):
    """The same with the layer "logits", which the Inception-style score reads."""

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return (FEATURES, LOGITS)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return LOGITS if metric == "isc" else FEATURES


def state_hash(module: nn.Module, config: Mapping[str, Any]) -> str:
    """Return a SHA-256 over a configuration and the names, types, shapes and bytes of a module's state."""
    digest = hashlib.sha256(json.dumps(dict(config), sort_keys=True).encode())
    for name, value in sorted(module.state_dict().items()):
        array = value.detach().cpu().contiguous()
        digest.update(f"\n{name} {array.dtype} {tuple(array.shape)}\n".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def register(name: str, config: NetworkConfig, network: nn.Module) -> str:
    """Register a network with torch-fidelity and return the name it bears there: chorus-NAME-HASH."""
    registered = f"chorus-{name}-{state_hash(network, config.to_json())[:12]}"
    if registered not in FEATURE_EXTRACTORS_REGISTRY:
        base = OwnClassifier if config.classes else OwnExtractor
        members = {"network": copy.deepcopy(network).cpu().eval(), "channels": config.channels}
        register_feature_extractor(registered, type(base.__name__, (base,), members))
    return registered


class Extractor:
    """A network with the layers that we take from it.

    name: ours. registered: torch-fidelity's. hash: of its weights and configuration. logits: the layer of class scores,
    None where it has none.
    """

    def __init__(
        self, name: str, registered: str, digest: str, module: Any, layer: str, logits: str | None, device: torch.device
    ) -> None:
        self.name, self.registered, self.hash = name, registered, digest
        self.module = module.requires_grad_(False).eval().to(device)
        self.layer, self.logits, self.device = layer, logits, device

    @torch.inference_mode()
    def features(self, images: Tensor | np.ndarray, batch: int = 256) -> Features:
        """Return the features of uint8 images N×C×S×S (C 1 or 3; a memory-mapped array is read a batch at a time).

        Raises `ChorusError` where a feature is not finite.
        """
        values, logits = [], []
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            tensor = part if isinstance(part, Tensor) else torch.from_numpy(np.array(part))
            colour = tensor.expand(-1, 3, -1, -1).contiguous().to(self.device)
            found = self.module.convert_features_tuple_to_dict(self.module(colour))
            values.append(found[self.layer].cpu())
            if self.logits:
                logits.append(found[self.logits].cpu())
        result = torch.cat(values)
        if not bool(result.isfinite().all()):
            raise ChorusError(
                f"extractor '{self.name}' gives features that are not finite; train it anew: `dvc repro -f reference`"
            )
        return Features(result.numpy(), torch.cat(logits).numpy() if logits else None)


def own_extractor(
    name: str, config: NetworkConfig, network: nn.Module, device: torch.device | str = "cpu"
) -> Extractor:
    """Wrap and register one of our networks."""
    registered = register(name, config, network)
    layers = [FEATURES, LOGITS] if config.classes else [FEATURES]
    module = FEATURE_EXTRACTORS_REGISTRY[registered](registered, list(layers))
    digest = state_hash(network, config.to_json())
    return Extractor(
        name, registered, digest, module, FEATURES, LOGITS if config.classes else None, torch.device(device)
    )


def published_extractor(name: str, weights: Path | None, device: torch.device | str = "cpu") -> Extractor:
    """Load one of torch-fidelity's; raises `ChorusError` that says which file to put where."""
    module, published = load_published(name, find_weights(name, weights)), PUBLISHED[name]
    digest = state_hash(module, {"name": name})
    return Extractor(name, name, digest, module, published.layer, published.logits, torch.device(device))


def save_own(folder: Path, config: NetworkConfig, network: nn.Module) -> None:
    """Write `config.json` and `model.safetensors`."""
    save_state(folder / "model.safetensors", network)
    write_json(folder / "config.json", {"schema": SCHEMA, "network": config.to_json()})


def save_published(folder: Path, extractor: Extractor) -> None:
    """Write `config.json` alone: the weights stay where they are, their hash says which they were."""
    write_json(folder / "config.json", {"schema": SCHEMA, "published": extractor.name, "hash": extractor.hash})


def load_extractor(
    folder: Path, device: torch.device | str = "cpu", weights: Mapping[str, Path] | None = None
) -> Extractor:
    """Load the extractor of `extractors/NAME`.

    weights: params.yaml's `reference.weights`. Raises `ChorusError` where files are missing, damaged or newer than this
    code, and where published weights are not those that the reference was made with.
    """
    content = read_content(folder)
    if "published" not in content:
        return own_extractor(folder.name, *load_network(folder), device)
    name = content["published"]
    extractor = published_extractor(name, (weights or {}).get(name), device)
    if extractor.hash != content["hash"]:
        raise ChorusError(
            f"the weights of extractor '{name}' have changed since the reference was made: run `dvc repro -f reference`"
        )
    return extractor


def load_extractors(
    reference: Path,
    names: Iterable[str],
    device: torch.device | str = "cpu",
    weights: Mapping[str, Path] | None = None,
) -> dict[str, Extractor]:
    """Load extractors of `data/reference` by name; see `load_extractor`."""
    return {name: load_extractor(reference / "extractors" / name, device, weights) for name in names}
