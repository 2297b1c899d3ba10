import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline._torchvision import allow_torchvision
from pipeline.errors import ChorusError
from pipeline.evaluation import frechet
from pipeline.evaluation.frechet import Moments, Running, moments

allow_torchvision()
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric  # noqa: E402


def normal(n: int, d: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(n, d)) @ random.normal(size=(d, d)) + random.normal(size=d)


def of(a: np.ndarray, b: np.ndarray) -> float:
    return frechet.distance(moments(a), moments(b))


def by_torch_fidelity(a: np.ndarray, b: np.ndarray) -> float:
    statistics = (fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b))
    return float(fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"])


def test_one_dimensional_gaussians_by_hand() -> None:
    # |3 - 1|² + (2 - 5)²
    one, other = Moments(np.array([3.0]), np.array([[4.0]])), Moments(np.array([1.0]), np.array([[25.0]]))
    assert frechet.distance(one, other) == pytest.approx(13)


def test_moments_are_the_unbiased_ones() -> None:
    x = normal(50, 4, 0)
    found = moments(x.astype(np.float32))
    assert found.mean.dtype == found.covariance.dtype == np.float64
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.covariance, np.cov(x, rowvar=False), rtol=1e-4)


def rectified(n: int, d: int, seed: int) -> np.ndarray:
    """Return features as a network's: after a rectifier, correlated, on scales that differ by a factor of 40."""
    random = np.random.default_rng(d)
    mixing = random.normal(size=(20, d)), np.geomspace(1, 0.025, d)
    random = np.random.default_rng(seed)
    common, own = random.normal(size=(n, 20)) * (1 + seed / 10), random.normal(size=(n, d))
    return np.maximum(common @ mixing[0] / 8 + own * mixing[1] + 0.1, 0)


@pytest.mark.parametrize(
    ("n", "d"),
    [(300, 12), (20, 40), (500, 64), (50, 64), (900, 768), (200, 768), (200, 2048)],
)
def test_equals_torch_fidelity(n: int, d: int) -> None:
    a, b = rectified(n, d, 1), rectified(n + 7, d, 2)
    assert of(a, b) == pytest.approx(by_torch_fidelity(a, b), rel=1e-6)


@pytest.mark.slow
def test_equals_torch_fidelity_where_2048_features_have_full_rank() -> None:
    test_equals_torch_fidelity(2300, 2048)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.lists(st.integers(0, 40), max_size=6))
def test_batches_in_any_sizes_have_the_moments_of_all(seed: int, d: int, sizes: list[int]) -> None:
    x = normal(3 + sum(sizes), d, seed) + 1000.0
    whole = Running(d)
    for batch in np.split(x, np.cumsum(sizes)):
        whole.update(batch)
    found = whole.moments()
    assert whole.count == found.images == len(x)
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(x, rowvar=False).reshape(d, d), rtol=1e-9, atol=1e-9)


def test_memory_does_not_grow_with_the_images() -> None:
    def peak(n: int) -> int:
        x = np.zeros((n, 16), np.float32)
        tracemalloc.start()
        moments(x)
        _, found = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return found

    assert peak(8 * frechet.ROWS_AT_ONCE) < 1.1 * peak(2 * frechet.ROWS_AT_ONCE)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_no_numbers_are_refused(value: float) -> None:
    x = normal(20, 3, 0)
    x[4, 1] = value
    with np.errstate(invalid="ignore"), pytest.raises(ChorusError, match="NaN or infinite"):
        moments(x)


def test_one_image_is_refused() -> None:
    with pytest.raises(ChorusError, match="at least 2 images on each side, not 1"):
        moments(normal(1, 3, 0))


def test_equal_sets_are_at_distance_zero() -> None:
    x = normal(100, 10, 3)
    assert of(x, x) == pytest.approx(0, abs=1e-8)


def test_a_set_of_equal_images_by_hand() -> None:
    # Nothing is left of the trace root: |μ|² + tr Σ.
    real = moments(normal(100, 5, 3))
    same = moments(np.zeros((30, 5)))
    expected = real.mean @ real.mean + np.trace(real.covariance)
    assert frechet.distance(same, real) == pytest.approx(expected)
    assert frechet.distance(real, same) == pytest.approx(expected)


def test_symmetric_and_invariant_to_rotation_and_shift() -> None:
    a, b = normal(200, 6, 4), normal(200, 6, 5)
    rotation = np.linalg.qr(np.random.default_rng(6).normal(size=(6, 6)))[0]
    assert of(b, a) == pytest.approx(of(a, b))
    assert of(a @ rotation + 3, b @ rotation + 3) == pytest.approx(of(a, b))


def test_scales_with_the_square_of_the_unit() -> None:
    a, b = normal(200, 6, 7), normal(200, 6, 8)
    assert of(3 * a, 3 * b) == pytest.approx(9 * of(a, b))


@pytest.mark.parametrize(("n", "d", "rank"), [(100, 8, 8), (5, 8, 4), (700, 600, 600), (301, 600, 300), (9, 1, 1)])
def test_the_root_gives_the_covariance_and_what_is_seen_through_it(n: int, d: int, rank: int) -> None:
    real = moments(normal(n, d, 9))
    assert real.root.shape == (d, rank)
    np.testing.assert_allclose(real.root @ real.root.T, real.covariance, atol=1e-10 * d**2)
    other = moments(normal(50, d, 10)).covariance
    found = np.tril(frechet.seen_through(real.root, other))
    np.testing.assert_allclose(found, np.tril(real.root.T @ other @ real.root), rtol=1e-7, atol=1e-7 * found.max())


def test_the_root_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = moments(normal(100, 5, 0)), []
    cholesky = np.linalg.cholesky
    monkeypatch.setattr(np.linalg, "cholesky", lambda matrix: calls.append(1) or cholesky(matrix))
    for seed in range(3):
        frechet.distance(moments(normal(50, 5, seed)), real)
    assert len(calls) == 1
