import numpy as np
import pytest
import torch

from pipeline._torchvision import allow_torchvision
from pipeline.evaluation import frechet

allow_torchvision()
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric  # noqa: E402


def normal(n: int, d: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(n, d)) @ random.normal(size=(d, d)) + random.normal(size=d)


def of(a: np.ndarray, b: np.ndarray) -> float:
    return frechet.distance(*frechet.moments(a), *frechet.moments(b))


def test_one_dimensional_gaussians_by_hand() -> None:
    # |3 - 1|² + (2 - 5)²
    distance = frechet.distance(np.array([3.0]), np.array([[4.0]]), np.array([1.0]), np.array([[25.0]]))
    assert distance == pytest.approx(13)


def test_moments_are_the_unbiased_ones() -> None:
    x = normal(50, 4, 0)
    mean, cov = frechet.moments(x.astype(np.float32))
    assert mean.dtype == cov.dtype == np.float64
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(cov, np.cov(x, rowvar=False), rtol=1e-4)


@pytest.mark.parametrize(("n", "d"), [(300, 12), (20, 40)])
def test_equals_torch_fidelity(n: int, d: int) -> None:
    a, b = normal(n, d, 1), normal(n + 7, d, 2)
    theirs = fid_statistics_to_metric(*(fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)), False)
    assert of(a, b) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)


def test_equal_sets_are_at_distance_zero() -> None:
    x = normal(100, 10, 3)
    assert of(x, x) == pytest.approx(0, abs=1e-8)


def test_symmetric_and_invariant_to_rotation_and_shift() -> None:
    a, b = normal(200, 6, 4), normal(200, 6, 5)
    rotation = np.linalg.qr(np.random.default_rng(6).normal(size=(6, 6)))[0]
    assert of(b, a) == pytest.approx(of(a, b))
    assert of(a @ rotation + 3, b @ rotation + 3) == pytest.approx(of(a, b))


def test_scales_with_the_square_of_the_unit() -> None:
    a, b = normal(200, 6, 7), normal(200, 6, 8)
    assert of(3 * a, 3 * b) == pytest.approx(9 * of(a, b))


def test_root_squares_to_the_matrix() -> None:
    matrix = frechet.moments(normal(100, 8, 9))[1]
    root = frechet.sqrt_psd(matrix)
    np.testing.assert_allclose(root @ root, matrix, atol=1e-10)
