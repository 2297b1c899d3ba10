import tracemalloc

import numpy as np
import pytest

from pipeline.evaluation.frechet import distance, mean_distance, moments
from pipeline.evaluation.ruler import Ruler, choose_dims, decisive, few_for, fit_ruler, frechet_name, views


@pytest.mark.parametrize(
    ("setting", "features", "images", "dims"),
    [
        ("auto", 64, 179, 16),
        ("auto", 64, 639, 16),
        ("auto", 64, 640, None),
        ("auto", 5, 50, None),
        ("all", 64, 10, None),
        (8, 64, 10_000, 8),
        (64, 64, 10, None),
    ],
)
def test_dims(setting, features, images, dims) -> None:
    assert choose_dims(setting, features, images) == dims


def test_names_say_the_extractor_and_fid_is_inceptions_alone() -> None:
    assert frechet_name("classifier", None) == "fd_classifier"
    assert frechet_name("classifier", 16) == "fd16_classifier"
    assert frechet_name("inception-v3-compat", None) == "fid"
    assert frechet_name("inception-v3-compat", 16) == "fd16_inception-v3-compat"


def test_projection_is_onto_the_leading_components_of_train() -> None:
    random = np.random.default_rng(0)
    train = (random.normal(size=(500, 5)) * [1, 5, 2, 9, 3] + 7).astype(np.float32)
    ruler = fit_ruler("x", train, 2)
    projected = ruler.project(train)
    assert projected.shape == (500, 2)
    assert projected.dtype == np.float64
    np.testing.assert_allclose(projected.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(np.abs(ruler.basis).argmax(0), [3, 1])
    np.testing.assert_allclose(ruler.basis.T @ ruler.basis, np.eye(2), atol=1e-12)
    assert (ruler.basis == fit_ruler("x", train, 2).basis).all()


@pytest.mark.parametrize("dims", [None, 2])
def test_relative_features_are_projected_and_scaled_whatever_their_number(dims) -> None:
    features = np.random.default_rng(0).normal(size=(10_000, 5)).astype(np.float32)
    ruler = fit_ruler("x", features, dims)
    np.testing.assert_allclose(ruler.relative(features), ruler.project(features) / np.sqrt(ruler.spread), rtol=1e-12)


def test_wide_features_are_made_relative_without_a_copy_of_all_of_them() -> None:
    wide = np.zeros((40_000, 64), dtype=np.float32)
    ruler = Ruler("x", 2, "fd2_x", 2.0, np.zeros(64), np.eye(64)[:, :2])
    tracemalloc.start()
    ruler.relative(wide)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < wide.nbytes


def test_all_dimensions_leave_the_features_alone() -> None:
    features = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    assert (fit_ruler("x", features, None).project(features) == features).all()


@pytest.mark.parametrize("dims", [None, 2])
def test_distances_are_relative_to_the_variance_of_real_images(dims) -> None:
    """1 for what always lies in the middle of them, whatever the features' scale; 0 for themselves."""
    random = np.random.default_rng(0)
    features = {name: random.normal(size=(400, 5)) * scale + 3 for name, scale in (("a", 1.0), ("b", 50.0))}
    rulers = [fit_ruler(name, values, dims) for name, values in features.items()]
    real = views(rulers, features)
    middle = views(rulers, {name: np.tile(values.mean(0), (10, 1)) for name, values in features.items()})
    assert mean_distance(real, real) == pytest.approx(0, abs=1e-9)
    assert mean_distance(middle, real) == pytest.approx(1)
    metrics = {
        ruler.name: distance(moments(ruler.project(values + 1)), moments(ruler.project(values)))
        for ruler, values in zip(rulers, features.values(), strict=True)
    }
    moved = views(rulers, {name: values + 1 for name, values in features.items()})
    assert decisive(metrics, rulers) == pytest.approx(mean_distance(moved, real))


def test_images_that_look_all_the_same_have_no_variance_to_be_relative_to() -> None:
    assert fit_ruler("x", np.ones((10, 3)), None).spread == 1.0


def test_moments_seen_are_those_of_what_is_projected() -> None:
    values = np.random.default_rng(2).normal(size=(90, 7)) * np.arange(1, 8) + 3
    for dims in (None, 4):
        ruler = fit_ruler("x", values, dims)
        direct, seen = moments(ruler.project(values[:50])), ruler.see(moments(values[:50]))
        np.testing.assert_allclose(seen.mean, direct.mean, atol=1e-12)
        np.testing.assert_allclose(seen.covariance, direct.covariance, atol=1e-10)


def test_rulers_with_too_many_dimensions_for_the_images_are_named() -> None:
    wide, narrow = (Ruler(name, None, f"fd_{name}", spread=1.0) for name in ("wide", "narrow"))
    assert few_for([wide, narrow], [np.zeros((150, 16)), np.zeros((150, 15))]) == ["fd_wide"]
