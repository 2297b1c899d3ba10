import numpy as np
import pytest

from pipeline.evaluation.ruler import choose_dims, fit_ruler, frechet_name


@pytest.mark.parametrize(
    ("setting", "features", "val_images", "dims"),
    [
        ("auto", 64, 359, 16),
        ("auto", 64, 1279, 16),
        ("auto", 64, 1280, None),
        ("auto", 16, 100, None),
        ("all", 64, 10, None),
        (8, 64, 10_000, 8),
        (64, 64, 10, None),
    ],
)
def test_dims(setting, features, val_images, dims) -> None:
    assert choose_dims(setting, features, val_images) == dims


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


def test_all_dimensions_leave_the_features_alone() -> None:
    features = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    assert (fit_ruler("x", features, None).project(features) == features).all()
