import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import ChorusError
from pipeline.evaluation.extractors import (
    FEATURE_EXTRACTORS_REGISTRY,
    load_extractor,
    load_extractors,
    own_extractor,
    save_own,
)
from pipeline.evaluation.networks import NetworkConfig, build
from pipeline.evaluation.own import OWN
from pipeline.evaluation.pretrained import DIGESTS, DINOV2_COMMIT, PUBLISHED, find_weights, load_published
from pipeline.files import file_hash, read_json, write_json
from pipeline.params import OWN_EXTRACTORS, PRETRAINED

CONFIG = NetworkConfig("plain", 1, 8, 12, 3)


def network(seed: int = 0) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(CONFIG)


def some(n: int = 10, channels: int = 1) -> torch.Tensor:
    return torch.randint(0, 256, (n, channels, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_every_name_that_params_allow_exists() -> None:
    assert set(OWN) == set(OWN_EXTRACTORS)
    assert set(PUBLISHED) == set(PRETRAINED)
    assert set(PRETRAINED) <= set(FEATURE_EXTRACTORS_REGISTRY)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    extractor = own_extractor("classifier", CONFIG, network())
    save_own(tmp_path / "extractors" / "classifier", CONFIG, network())
    loaded = load_extractors(tmp_path, ["classifier"])["classifier"]
    assert loaded.hash == extractor.hash
    assert loaded.registered == extractor.registered == f"chorus-classifier-{extractor.hash[:12]}"
    before, after = extractor.features(some()), loaded.features(some())
    assert (before.values == after.values).all()
    assert (before.logits == after.logits).all()
    assert before.values.dtype == np.float32


def test_hash_tells_weights_apart() -> None:
    assert own_extractor("a", CONFIG, network(0)).hash != own_extractor("a", CONFIG, network(1)).hash


def test_batches_change_features_by_rounding_alone_and_arrays_do_as_tensors() -> None:
    extractor = own_extractor("classifier", CONFIG, network())
    whole = extractor.features(some(50)).values
    np.testing.assert_allclose(extractor.features(some(50).numpy(), batch=7).values, whole, rtol=1e-4, atol=1e-5)


def test_training_the_network_on_leaves_a_registered_one_alone() -> None:
    trained = network()
    extractor = own_extractor("classifier", CONFIG, trained)
    before = extractor.features(some()).values
    with torch.no_grad():
        next(trained.parameters()).add_(1)
    assert (extractor.features(some()).values == before).all()


def test_features_that_are_not_finite_are_refused() -> None:
    broken = network()
    broken.mean.fill_(torch.nan)
    with pytest.raises(ChorusError, match="extractor 'classifier' gives features that are not finite"):
        own_extractor("classifier", CONFIG, broken).features(some())


def test_newer_schema_is_refused(tmp_path: Path) -> None:
    save_own(tmp_path / "x", CONFIG, network())
    write_json(tmp_path / "x" / "config.json", read_json(tmp_path / "x" / "config.json") | {"schema": 99})
    with pytest.raises(ChorusError, match="schema 99"):
        load_extractor(tmp_path / "x")


@pytest.mark.parametrize("name", ["inception-v3-compat", "vgg16", "dinov2-vit-s-14", "clip-vit-b-32"])
def test_weights_that_cannot_be_had_say_which_file_to_put_where(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # A proxy where nothing listens: the download fails at once, with or without a network.
    monkeypatch.setattr("urllib.request._opener", None)  # which keeps the proxies that it first met
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with pytest.raises(ChorusError) as error:
        find_weights(name, None)
    file = PUBLISHED[name].file
    for part in (
        name,
        f"get {file} from https://",
        f"reference.weights.{name}",
        str(tmp_path / "hub/checkpoints" / file),
    ):
        assert part in str(error.value)
    assert not list((tmp_path / "hub" / "checkpoints").iterdir())


def test_a_named_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ChorusError, match=r"reference\.weights\.vgg16: there is no file .*nowhere\.pth"):
        find_weights("vgg16", tmp_path / "nowhere.pth")


def test_cached_weights_are_taken(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"weights")
    with pytest.raises(ChorusError, match=r"vgg16-397923af\.pth is not .* as published: its SHA-256 is another one"):
        find_weights("vgg16", None)
    monkeypatch.setitem(DIGESTS, cached.name, file_hash(cached))
    assert find_weights("vgg16", None) == cached


def test_dinov2s_code_is_one_commit(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    checkout = tmp_path / "hub" / f"facebookresearch_dinov2_{DINOV2_COMMIT}"
    checkout.mkdir(parents=True)
    (checkout / "hubconf.py").write_text(
        "import torch\ndependencies = ['torch']\n"
        "def dinov2_vits14(pretrained):\n    return torch.nn.Linear(2, 3 if pretrained else 2)\n"
    )
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "weights.pth")
    assert load_published("dinov2-vit-s-14", tmp_path / "weights.pth").model.out_features == 2


def test_every_published_file_has_its_digest() -> None:
    for published in PUBLISHED.values():
        assert re.fullmatch("[0-9a-f]{64}", published.digest)
        # Some names bear its beginning.
        assert (re.findall(r"-([0-9a-f]{8})\.pth$", published.file) or [published.digest[:8]]) == [published.digest[:8]]


class Harmful:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["inception-v3-compat", "vgg16"])
def test_nothing_but_tensors_is_unpickled(name: str, tmp_path: Path) -> None:
    torch.save({"weight": Harmful(tmp_path / "made")}, tmp_path / "weights.pth")
    with pytest.raises(ChorusError, match=f"does not hold the weights of extractor '{name}'"):
        load_published(name, tmp_path / "weights.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Harmful(tmp_path / "made")))
    with pytest.raises(ChorusError, match=f"does not hold the weights of extractor '{name}'"):
        load_published(name, tmp_path / "plain.pth")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["inception-v3-compat", "clip-rn50"])
def test_other_weights_are_refused(name: str, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "weights.pth")
    with pytest.raises(ChorusError, match=f"does not hold the weights of extractor '{name}'"):
        load_published(name, tmp_path / "weights.pth")
