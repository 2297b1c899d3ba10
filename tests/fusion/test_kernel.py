import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline._torchvision import allow_torchvision
from pipeline.fusion import kernel
from pipeline.fusion.kernel import MeanKernel, by_moments, by_pairs
from pipeline.fusion.kernel_distance import KernelDistance

allow_torchvision()
from torch_fidelity.metric_kid import kernel_poly, mmd2  # noqa: E402

KID = {"kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": 1.0, "kid_kernel_poly_coef0": 1.0}


def samples(seed, count=3, dims=4, rows=40):
    random = np.random.default_rng(seed)
    return [random.normal(size=(rows + i, dims)) / 2 + random.normal(size=dims) / 4 for i in range(count)]


def problem(seed, count=3, rows=40):
    """Parts and real images as two extractors see them."""
    seen = [samples(seed, count + 1, 4, rows), samples(seed + 1, count + 1, 2, rows)]
    parts = list(zip(*seen, strict=True))
    return parts, KernelDistance.of(MeanKernel.of(parts), count, [count])


def weights_of(seed, count):
    return np.random.default_rng(seed).dirichlet(np.ones(count))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 7))
def test_moments_and_pairs_and_torch_fidelity_give_the_same_means(seed, dims):
    parts = samples(seed, dims=dims)
    expected = [[kernel_poly(x, y, **KID).mean() for y in parts] for x in parts]
    np.testing.assert_allclose(by_moments(parts), expected, rtol=1e-10)
    np.testing.assert_allclose(by_pairs(parts), expected, rtol=1e-10)


def test_pairs_are_taken_in_chunks(monkeypatch):
    parts = samples(0)
    whole = by_pairs(parts)
    monkeypatch.setattr(kernel, "ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(by_pairs(parts), whole, rtol=1e-12)


def test_wide_features_are_paired_and_large_parts_thinned_out(monkeypatch):
    parts = [(part,) for part in samples(0, rows=200)]
    whole = MeanKernel.of(parts)
    assert whole.rows.tolist() == [200, 201, 202]
    monkeypatch.setattr(kernel, "MOMENT_DIMS", 3)
    np.testing.assert_allclose(MeanKernel.of(parts).pairs, whole.pairs, rtol=1e-10)
    monkeypatch.setattr(kernel, "PAIRED_ROWS", 100)
    some = MeanKernel.of(parts, seed=1)
    assert some.rows.tolist() == [100, 100, 100]
    np.testing.assert_allclose(some.pairs, whole.pairs, rtol=0.2)
    assert (some.pairs == MeanKernel.of(parts, seed=1).pairs).all()


@pytest.mark.parametrize("estimate", ["biased", "unbiased"])
def test_a_single_part_has_the_distance_that_torch_fidelity_computes(estimate):
    """The mean over extractors of its estimate, on equally many samples, as it asks for."""
    seen = [[part[:40] for part in samples(seed, 2, dims)] for seed, dims in ((3, 4), (4, 2))]
    expected = np.mean(
        [mmd2(*(kernel_poly(x, y, **KID) for x, y in ((a, a), (a, b), (b, b))), mmd_est=estimate) for a, b in seen]
    )
    parts = list(zip(*seen, strict=True))
    distance = KernelDistance.of(MeanKernel.of(parts), 1, [1])
    one = np.ones(1)
    assert (distance(one)[0] if estimate == "biased" else distance.unbiased(one)) == pytest.approx(expected, rel=1e-9)
    assert distance.of_each() == pytest.approx([distance.unbiased(one)])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_a_mixture_is_what_its_pooled_samples_measure(seed):
    parts, distance = problem(seed)
    rows = [len(part[0]) for part in parts[:3]]
    pooled = tuple(np.concatenate([part[i] for part in parts[:3]]) for i in range(2))
    whole = KernelDistance.of(MeanKernel.of([pooled, parts[3]]), 1, [1])
    value, _ = distance(np.array(rows) / sum(rows))
    assert value == pytest.approx(whole(np.ones(1))[0], rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_real_images_in_folds_are_the_real_images_together(seed):
    parts, distance = problem(seed, count=2)
    real = parts[2]
    cut = [tuple(features[rows] for features in real) for rows in (slice(10), slice(10, 17), slice(17, None))]
    kernel_of_folds = MeanKernel.of([*parts[:2], *cut])
    again = KernelDistance.of(kernel_of_folds, 2, [2, 3, 4])
    weights = weights_of(seed, 2)
    assert again(weights)[0] == pytest.approx(distance(weights)[0], rel=1e-9)
    assert again.unbiased(weights) == pytest.approx(distance.unbiased(weights), rel=1e-9)
    alone = KernelDistance.of(MeanKernel.of([*parts[:2], cut[1]]), 2, [2])
    assert KernelDistance.of(kernel_of_folds, 2, [3]).unbiased(weights) == pytest.approx(alone.unbiased(weights))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_gradient_and_convexity(seed):
    _, distance = problem(seed)
    one, other = weights_of(seed, 3), weights_of(seed + 1, 3)
    (here, gradient), (there, _) = distance(one), distance(other)
    assert np.linalg.eigvalsh(distance.parts).min() > -1e-9
    assert there >= here + gradient @ (other - one) - 1e-9
    step = 1e-6 * (other - one)
    assert distance(one + step)[0] - here == pytest.approx(gradient @ step, rel=1e-3, abs=1e-11)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_ambiguity_identity(seed, count):
    """MMD²(Σwᵢpᵢ, q) = Σwᵢ MMD²(pᵢ, q) − ½ΣΣwᵢwⱼ MMD²(pᵢ, pⱼ), in unbiased estimates."""
    _, distance = problem(seed, count)
    weights = weights_of(seed, count)
    gain = distance.ambiguity(weights)
    assert distance.unbiased(weights) == pytest.approx(weights @ distance.of_each() - gain, rel=1e-9, abs=1e-12)
    assert np.diagonal(distance.between()) == pytest.approx(np.zeros(count), abs=1e-12)


def test_the_unbiased_estimate_is_zero_on_average_where_nothing_differs():
    random = np.random.default_rng(0)
    found = []
    for _ in range(200):
        a, b, q = (random.normal(size=(30, 3)) for _ in range(3))
        distance = KernelDistance.of(MeanKernel.of([(a,), (b,), (q,)]), 2, [2])
        found.append([distance.unbiased(np.array([0.5, 0.5])), distance.between()[0, 1]])
    mean, error = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(mean) < 3 * error).all()


def test_errors_that_oppose_correlate_negatively_and_those_that_agree_positively():
    random = np.random.default_rng(0)
    left, again, right = (random.normal(size=(4000, 2)) / 2 + [shift, 0] for shift in (-0.5, -0.5, 0.5))
    real = random.normal(size=(4000, 2)) / 2
    distance = KernelDistance.of(MeanKernel.of([(left,), (again,), (right,), (real,)]), 3, [3])
    cosines = distance.error_correlation()
    assert np.diagonal(cosines) == pytest.approx(np.ones(3))
    assert cosines[0, 1] > 0.95
    assert cosines[0, 2] < -0.4
    assert (cosines == cosines.T).all()
    # Two equal members with errors at the cosine ρ: a mixture of both has (1 + ρ) / 2 of their error.
    expected = (1 + cosines[0, 2]) / 2 * distance.of_each()[0]
    assert distance.unbiased(np.array([0.5, 0, 0.5])) == pytest.approx(expected, rel=0.1)


def test_a_part_without_an_error_left_has_no_correlation():
    random = np.random.default_rng(3)
    real = random.normal(size=(50, 2))
    # The real images themselves: the estimate is below 0, as the pairs of an image with itself count on one side alone.
    distance = KernelDistance.of(MeanKernel.of([(real,), (random.normal(size=(50, 2)) + 2,), (real,)]), 2, [2])
    cosines = distance.error_correlation()
    assert distance.of_each()[0] < 0
    assert np.isnan(cosines[0]).all()
    assert cosines[1, 1] == 1
