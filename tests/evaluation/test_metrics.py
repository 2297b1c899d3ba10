from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from pipeline._torchvision import allow_torchvision
from pipeline.evaluation.extractors import Extractor, own_extractor, published_extractor
from pipeline.evaluation.features import Features
from pipeline.evaluation.metrics import measure, warnings_of
from pipeline.evaluation.networks import NetworkConfig, build
from pipeline.evaluation.ruler import Ruler, fit_ruler
from tests.factories import structured_images

allow_torchvision()
from torch_fidelity import calculate_metrics  # noqa: E402
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # noqa: E402
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric  # noqa: E402


class Images(Dataset):
    """Images as torch-fidelity reads a data set: uint8 3×S×S each."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images.expand(-1, 3, -1, -1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index]


def images(n: int, seed: int, size: int = 8) -> torch.Tensor:
    return torch.from_numpy(structured_images(n, size, 1, np.arange(n) % (3 + seed), seed))


def plain(name: str) -> Ruler:
    return Ruler(name, None, f"fd_{name}", spread=1.0)


def classifier() -> Extractor:
    config = NetworkConfig("plain", 1, 8, 12, 3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return own_extractor("classifier", config, build(config))


def theirs(extractor: Extractor, fake: torch.Tensor, real: torch.Tensor, **settings) -> dict[str, float]:
    return calculate_metrics(
        input1=Images(fake),
        input2=Images(real),
        feature_extractor=extractor.registered,
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
        **settings,
    )


def assert_equal(ours: dict[str, float], found: dict[str, float], name: str, frechet: str) -> None:
    # torch-fidelity adds up the mean of float32 features in float32: see the next test for the Fréchet distance itself.
    assert ours.pop(frechet) == pytest.approx(found["frechet_inception_distance"], rel=1e-4)
    keys = {
        f"kid_{name}": "kernel_inception_distance_mean",
        f"isc_{name}": "inception_score_mean",
        f"precision_{name}": "precision",
        f"recall_{name}": "recall",
    }
    own = {f"density_{name}", f"coverage_{name}"}  # torch-fidelity has neither
    shared = {key: value for key, value in ours.items() if key not in own}
    assert ours.keys() > own
    assert shared == pytest.approx({our: found[their] for our, their in keys.items()}, rel=1e-6)


def test_equal_to_torch_fidelity_on_our_extractor() -> None:
    extractor, fake, real = classifier(), images(150, 1), images(200, 0)
    ours = measure(extractor.features(fake, 64), extractor.features(real, 64), plain("classifier"), seed=5)
    found = theirs(extractor, fake, real, batch_size=64, rng_seed=5, kid_subset_size=150)
    assert_equal(ours, found, "classifier", "fd_classifier")


def test_the_frechet_distance_is_torch_fidelitys_in_double_precision() -> None:
    extractor = classifier()
    fake, real = extractor.features(images(150, 1), 64), extractor.features(images(200, 0), 64)
    sides = (fid_features_to_statistics(torch.from_numpy(side.values).double()) for side in (fake, real))
    expected = fid_statistics_to_metric(*sides, verbose=False)["frechet_inception_distance"]
    assert measure(fake, real, plain("classifier"))["fd_classifier"] == pytest.approx(expected, rel=1e-6)


class BlankInception(FeatureExtractorInceptionV3):
    """torch-fidelity's Inception network before any weights are loaded into it."""

    def load_state_dict(self, *_: object, **__: object) -> None:
        """Keep the random weights."""


def write_random_inception(path: Path) -> None:
    torch.save({}, path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = BlankInception("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                # Unit running variance would let 90 layers of random weights fade to nothing.
                module.running_var.fill_(0.2)
    torch.save(network.state_dict(), path)


def test_equal_to_torch_fidelity_on_the_inception_network(tmp_path: Path) -> None:
    name, weights = "inception-v3-compat", tmp_path / "weights.pth"
    write_random_inception(weights)
    extractor, fake, real = published_extractor(name, weights), images(12, 1), images(10, 0)
    ours = measure(
        extractor.features(fake, 6), extractor.features(real, 6), Ruler(name, None, "fid", spread=1.0), seed=3
    )
    settings = {"batch_size": 6, "rng_seed": 3, "kid_subset_size": 10, "feature_extractor_weights_path": str(weights)}
    assert_equal(ours, theirs(extractor, fake, real, **settings), name, "fid")


def normal(n: int, d: int, seed: int = 0) -> Features:
    random = np.random.default_rng(seed)
    return Features(random.normal(size=(n, d)).astype(np.float32), random.normal(size=(n, 4)).astype(np.float32))


def test_a_set_against_itself() -> None:
    features = normal(100, 6)
    found = measure(features, features, fit_ruler("x", features.values, 3))
    assert found["fd3_x"] == pytest.approx(0, abs=1e-6)
    assert found["fd_x"] == pytest.approx(0, abs=1e-5)
    assert found["precision_x"] == found["recall_x"] == 1
    assert found["coverage_x"] == 1
    among = {"precision_x", "recall_x", "density_x", "coverage_x"}
    assert set(found) == {"fd3_x", "fdinf3_x", "fd_x", "kid_x", "isc_x"} | among


def test_a_collapsed_generator_gives_finite_metrics() -> None:
    fake = Features(np.ones((80, 6), np.float32), np.zeros((80, 4), np.float32))
    found = measure(fake, normal(100, 6), plain("x"))
    assert np.isfinite(list(found.values())).all()
    assert found["isc_x"] == pytest.approx(1)
    assert found["recall_x"] == 0


def test_no_score_without_classes() -> None:
    features = Features(normal(50, 6).values)
    assert "isc_x" not in measure(features, features, plain("x"))


def test_same_seed_same_numbers() -> None:
    first, second = normal(1200, 4), normal(1300, 4, 1)
    assert measure(first, second, plain("x"), seed=2**40) == measure(first, second, plain("x"), seed=2**40)


def test_warns_of_fewer_images_than_features() -> None:
    many, few = normal(100, 20), normal(15, 20)
    assert warnings_of(many, many, plain("x")) == []
    assert warnings_of(few, many, plain("x")) == ["fd_x: 15 images for 20 features; use kid_x instead"]
    reduced = fit_ruler("x", many.values, 16)
    assert [text.split(":")[0] for text in warnings_of(many, few, reduced)] == ["fd16_x", "fd_x"]


def test_extrapolates_where_the_images_are_enough() -> None:
    real = normal(400, 6)
    # 20 images a dimension: 120 of them in 6 dimensions, 60 in 3.
    assert "fdinf_x" in measure(normal(120, 6, 1), real, plain("x"))
    assert "fdinf_x" not in measure(normal(119, 6, 1), real, plain("x"))
    assert "fdinf3_x" in measure(normal(60, 6, 1), real, fit_ruler("x", real.values, 3))
