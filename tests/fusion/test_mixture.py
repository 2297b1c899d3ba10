import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation import frechet
from pipeline.fusion.mixture import MeanDistance, MixtureDistance


def problem(seed, parts=3, dims=4, n=300):
    rng = np.random.default_rng(seed)
    samples = [rng.normal(size=(n, dims)) @ rng.normal(size=(dims, dims)) + rng.normal(size=dims) for _ in range(parts)]
    real = rng.normal(size=(n, dims)) @ rng.normal(size=(dims, dims))
    return samples, frechet.moments(real)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_value_equals_the_distance_of_pooled_samples(seed):
    samples, real = problem(seed)
    # Pooling equal numbers of samples is the uniform mixture; ddof=0 makes the identity exact.
    exact = [(s.mean(0), np.cov(s, rowvar=False, ddof=0)) for s in samples]
    pooled = np.concatenate(samples)
    expected = frechet.distance(frechet.Moments(pooled.mean(0), np.cov(pooled, rowvar=False, ddof=0)), real)
    assert MixtureDistance.of(exact, real)(np.full(3, 1 / 3))[0] == pytest.approx(expected, rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_gradient_equals_finite_differences(seed):
    samples, real = problem(seed)
    distance = MixtureDistance.of([frechet.moments(s) for s in samples], real)
    weights = np.random.default_rng(seed).dirichlet(np.ones(3) * 3)
    _, gradient = distance(weights)
    direction = np.array([1.0, -0.5, -0.5])
    step = 1e-5
    slope = (distance(weights + step * direction)[0] - distance(weights - step * direction)[0]) / (2 * step)
    assert gradient @ direction == pytest.approx(slope, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_optimum_equals_brute_force_on_three_parts(seed):
    samples, real = problem(seed)
    distance = MeanDistance.of([(frechet.moments(s),) for s in samples], (real,))
    optimum = distance.optimum()
    grid = [np.array([i, j, 100 - i - j]) / 100 for i in range(101) for j in range(101 - i)]
    values = [distance(w)[0] for w in grid]
    assert optimum.value <= min(values) + 1e-6
    assert optimum.weights == pytest.approx(grid[int(np.argmin(values))], abs=0.02)
    assert optimum.gap <= 1e-6 * max(1, optimum.value)


def test_a_part_equal_to_the_real_images_takes_all_the_weight():
    samples, real = problem(1)
    distance = MeanDistance.of([(frechet.moments(samples[0]),), (real,), (frechet.moments(samples[1]),)], (real,))
    assert distance.optimum().weights == pytest.approx([0, 1, 0], abs=1e-3)


def test_identical_parts_share_and_nothing_breaks():
    samples, real = problem(2)
    same = frechet.moments(samples[0])
    optimum = MeanDistance.of([(same,), (same,)], (real,)).optimum()
    assert optimum.weights == pytest.approx([0.5, 0.5])
    assert np.isfinite(optimum.value)


@pytest.mark.parametrize("seed", [0, 1, 2, 4, 41])
def test_the_optimum_is_certified_beside_a_part_that_is_far_away(seed):
    # Exponentiated gradient alone takes thousands of steps here, or stops where a weight has vanished too early, and
    # a quadratic programme stops where values differ by rounding.
    rng = np.random.default_rng(seed)
    shifts = (-3.0, -1.0, 1.1, 4.0, 30.0)
    parts = [(frechet.moments(rng.normal(loc=(shift, 0), size=(1000, 2))),) for shift in shifts]
    optimum = MeanDistance.of(parts, (frechet.moments(rng.normal(size=(1000, 2)) * [1.5, 1]),)).optimum()
    assert optimum.gap <= 1e-7
    assert optimum.weights[-1] == pytest.approx(0, abs=1e-6)


def test_a_constant_part_has_a_finite_distance():
    samples, real = problem(3)
    constant = (np.zeros(4), np.zeros((4, 4)))
    distance = MeanDistance.of([(constant,), (frechet.moments(samples[0]),)], (real,))
    value, gradient = distance(np.array([1.0, 0.0]))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert distance.optimum().value <= min(value, distance(np.array([0.0, 1.0]))[0])


@pytest.mark.parametrize("count", [40, 400])
def test_directions_that_a_parts_few_images_lack_leave_its_gradient_finite(count):
    rng = np.random.default_rng(0)
    parts = [frechet.moments(rng.normal(size=(40, 64)) + 3) for _ in range(2)]
    distance = MixtureDistance.of(parts, frechet.moments(rng.normal(size=(count, 64))))
    value, gradient = distance(np.array([1.0, 0.0]))
    assert np.abs(gradient).max() < 10 * value


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_the_value_alone_is_the_same(seed):
    samples, real = problem(seed)
    distance = MeanDistance.of([(frechet.moments(s),) for s in samples], (real,))
    weights = np.random.default_rng(seed).dirichlet(np.ones(3))
    assert distance.value(weights) == pytest.approx(distance(weights)[0], rel=1e-12, abs=1e-12)


def test_other_real_images_see_the_same_parts():
    samples, real = problem(5)
    _, other = problem(6)
    parts = [(frechet.moments(s),) for s in samples]
    moved, built = MeanDistance.of(parts, (real,)).against((other,)), MeanDistance.of(parts, (other,))
    weights = np.array([0.2, 0.5, 0.3])
    assert moved(weights)[0] == built(weights)[0]
    assert (moved(weights)[1] == built(weights)[1]).all()


def test_several_extractors_count_the_same():
    (samples, real), (others, other_real) = problem(3), problem(4, dims=2)
    first = MixtureDistance.of([frechet.moments(s) for s in samples], real)
    second = MixtureDistance.of([frechet.moments(s) for s in others], other_real)
    parts = [(frechet.moments(one), frechet.moments(other)) for one, other in zip(samples, others, strict=True)]
    both = MeanDistance.of(parts, (real, other_real))
    weights = np.array([0.2, 0.5, 0.3])
    (value, gradient), (a, ga), (b, gb) = both(weights), first(weights), second(weights)
    assert value == pytest.approx((a + b) / 2)
    assert gradient == pytest.approx((ga + gb) / 2)
    assert both.optimum().value <= value


def test_without_bias_half_of_each_of_two_samples_of_one_distribution_gains_nothing():
    rng, real = np.random.default_rng(0), frechet.moments(np.random.default_rng(1).normal(size=(4000, 16)))
    gains = {False: [], True: []}
    for _ in range(50):
        parts = [frechet.moments(rng.normal(size=(300, 16)) + 0.1) for _ in range(2)]
        for unbiased, found in gains.items():
            distance = MixtureDistance.of(parts, real, unbiased=unbiased)
            one, other, both = (distance.value(np.array(w)) for w in ([1, 0], [0, 1], [0.5, 0.5]))
            found.append((one + other) / 2 - both)
    mean, error = (f(gains[True]) for f in (np.mean, lambda x: np.std(x) / len(x) ** 0.5))
    assert abs(mean) < 3 * error
    assert np.mean(gains[False]) > 20 * error


def test_without_bias_the_weights_do_not_spread_over_parts_that_add_nothing():
    """Six parts with one fault in growing size: the first alone is the nearest."""
    rng, real = np.random.default_rng(0), (frechet.moments(np.random.default_rng(1).normal(size=(5000, 64))),)
    fault = np.eye(64)[0]
    parts = [(frechet.moments(rng.normal(size=(2000, 64)) + 0.5 * (1 + 0.3 * i) * fault),) for i in range(6)]
    spread, kept = (MeanDistance.of(parts, real, unbiased=unbiased).optimum() for unbiased in (False, True))
    assert spread.weights[0] < 0.6
    assert kept.weights[0] > 0.9
    assert kept.gap <= 1e-7


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_the_gradient_without_bias_equals_finite_differences(seed):
    samples, real = problem(seed, n=30)
    distance = MeanDistance.of([(frechet.moments(s),) for s in samples], (real,), unbiased=True)
    weights = np.random.default_rng(seed).dirichlet(np.ones(3) * 3)
    value, gradient = distance(weights)
    assert value == pytest.approx(distance.value(weights))
    assert distance.bias.min() > 0
    direction, step = np.array([1.0, -0.5, -0.5]), 1e-5
    slope = (distance.value(weights + step * direction) - distance.value(weights - step * direction)) / (2 * step)
    assert gradient @ direction == pytest.approx(slope, rel=1e-4, abs=1e-5)
