"""Intervals against simulations of known distances, and against the jackknife that measures anew."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ChorusError
from pipeline.evaluation import frechet
from pipeline.evaluation.features import Features
from pipeline.evaluation.frechet import Moments
from pipeline.evaluation.intervals import Estimate, bias_of, difference, enough, estimate, interval, mean_of
from pipeline.evaluation.ruler import Ruler, fit_ruler

WHOLE = Ruler("x", None, "fd_x", spread=1.0)
DIMS = 6


class Gaussian:
    """Normal images, farther from those of size 0 the larger `size` is."""

    def __init__(self, size: float, dims: int = DIMS) -> None:
        random = np.random.default_rng(0)
        self.mixing = random.normal(size=(dims, dims)) / np.sqrt(dims) + np.eye(dims)
        self.mixing *= 1 + size * np.linspace(-1, 1, dims)
        self.mean = np.full(dims, size)

    def draw(self, n: int, random: np.random.Generator) -> Features:
        return Features(random.normal(size=(n, len(self.mean))) @ self.mixing + self.mean)

    @property
    def moments(self) -> Moments:
        return Moments(self.mean, self.mixing.T @ self.mixing)


def true_distance(size: float) -> float:
    return frechet.distance(Gaussian(size).moments, Gaussian(0).moments)


@pytest.fixture(scope="module")
def simulated() -> list[tuple[Estimate, Estimate]]:
    """Return estimates of two arms against the same real images, 300 times."""
    random, found = np.random.default_rng(1), []
    for _ in range(300):
        real = Gaussian(0).draw(250, random)
        arms = (Gaussian(size).draw(400, random) for size in (0.2, 0.3))
        one, other = (estimate(arm, real, WHOLE) for arm in arms)
        found.append((one, other))
    return found


def share_covered(intervals, truth: float) -> float:
    return float(np.mean([one.low <= truth <= one.high for one in intervals]))


def test_intervals_cover_the_true_distance(simulated) -> None:
    # 95 % of 300 is 285 with a standard deviation of 3.8; intervals may be a little too wide.
    for arm, size in enumerate((0.2, 0.3)):
        assert 0.91 <= share_covered([interval(pair[arm]) for pair in simulated], true_distance(size)) <= 0.995


def test_intervals_of_differences_cover_the_true_difference(simulated) -> None:
    pairs = [difference(one, other) for one, other in simulated]
    truth = true_distance(0.2) - true_distance(0.3)
    assert 0.91 <= share_covered(pairs, truth) <= 0.995
    # They are neither so wide that they say nothing: this difference is found nearly always.
    assert np.mean([pair.beyond_noise for pair in pairs]) > 0.9
    spread = np.std([pair.value for pair in pairs])
    assert np.mean([np.hypot(pair.redraws, pair.real) for pair in pairs]) == pytest.approx(spread, rel=0.2)


def test_the_bias_is_taken_off(simulated) -> None:
    measured, value = (np.array([getattr(one, name) for one, _ in simulated]) for name in ("measured", "value"))
    error = value.std() / np.sqrt(len(value))
    assert measured.mean() - true_distance(0.2) > 20 * error
    assert value.mean() == pytest.approx(true_distance(0.2), abs=4 * error)


def test_pairs_are_surer_than_arms_apart(simulated) -> None:
    one, other = simulated[0]
    assert difference(one, other).real < 0.7 * np.hypot(interval(one).real, interval(other).real)


def test_redraws_and_real_images_are_kept_apart() -> None:
    random = np.random.default_rng(2)
    few, many = 150, 20_000
    by_few_real = interval(estimate(Gaussian(0.3).draw(many, random), Gaussian(0).draw(few, random), WHOLE))
    by_few_fakes = interval(estimate(Gaussian(0.3).draw(few, random), Gaussian(0).draw(many, random), WHOLE))
    assert by_few_real.real > 5 * by_few_real.redraws
    assert by_few_fakes.redraws > 5 * by_few_fakes.real


def rectified(n: int, seed: int, dims: int = 5) -> Features:
    random = np.random.default_rng(seed)
    return Features(np.maximum(random.normal(size=(n, dims)) @ random.normal(size=(dims, dims)) + 0.5, 0))


def jackknife(fake: Features, real: Features, ruler: Ruler = WHOLE) -> tuple[float, list[float]]:
    """Return bias and both standard errors by measuring anew without each image (Quenouille 1949, Tukey 1958)."""
    whole = frechet.distance(ruler.see(fake.moments), ruler.see(real.moments))
    bias, errors = 0.0, []
    for side in (fake, real):
        n, without = len(side), []
        for i in range(n):
            rest = side.take(np.arange(n) != i)
            pair = (rest, real) if side is fake else (fake, rest)
            without.append(frechet.distance(*(ruler.see(part.moments) for part in pair)))
        bias += (n - 1) * (np.mean(without) - whole)
        errors.append(float(np.sqrt((n - 1) * np.var(without))))
    return bias, errors


@pytest.mark.parametrize("ruler", [WHOLE, fit_ruler("x", rectified(500, 9).values, 3)], ids=["all", "components"])
def test_equals_the_jackknife_that_measures_anew(ruler: Ruler) -> None:
    fake, real = rectified(400, 1), rectified(300, 2)
    found = estimate(fake, real, ruler)
    bias, errors = jackknife(fake, real, ruler)
    assert found.measured == pytest.approx(frechet.distance(ruler.see(fake.moments), ruler.see(real.moments)))
    assert found.bias == pytest.approx(bias, rel=0.06)
    assert [interval(found).redraws, interval(found).real] == pytest.approx(errors, rel=0.03)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 59))
def test_an_influence_is_the_derivative_by_an_images_weight(seed: int, row: int) -> None:
    fake, real = rectified(60, seed), rectified(80, seed + 1)
    step = 1e-4

    def weighted(side: Features, share: float) -> Moments:
        weights = np.full(len(side), (1 - share) / len(side))
        weights[row] += share
        mean = weights @ side.values
        centred = side.values - mean
        # The estimate's covariance has the divisor N - 1.
        return Moments(mean, (centred * weights[:, None]).T @ centred * (len(side) / (len(side) - 1)))

    found = estimate(fake, real, WHOLE)
    slopes = [
        (frechet.distance(weighted(fake, step), real.moments) - frechet.distance(weighted(fake, -step), real.moments)),
        (frechet.distance(fake.moments, weighted(real, step)) - frechet.distance(fake.moments, weighted(real, -step))),
    ]
    # The divisor scales the covariance's part by N / (N - 1), which the influence leaves out.
    size = max(np.abs(found.generated).max(), np.abs(found.real).max())
    assert found.generated[row] == pytest.approx(slopes[0] / (2 * step), abs=0.05 * size)
    assert found.real[row] == pytest.approx(slopes[1] / (2 * step), abs=0.05 * size)


def test_the_mean_of_rulers_is_that_of_their_relative_distances() -> None:
    fake, real = rectified(200, 3), rectified(200, 4)
    rulers = [WHOLE, fit_ruler("x", real.values, 2)]
    parts = [estimate(fake, real, ruler) for ruler in rulers]
    both = mean_of(parts, [2.0, 4.0])
    assert both.value == pytest.approx((parts[0].value / 2 + parts[1].value / 4) / 2)
    np.testing.assert_allclose(both.real, (parts[0].real / 2 + parts[1].real / 4) / 2)
    assert interval(mean_of([parts[0]], [1.0])) == interval(parts[0])


def test_an_arm_against_itself_differs_by_nothing_but_redraws() -> None:
    one = estimate(rectified(200, 3), rectified(200, 4), WHOLE)
    same = difference(one, one)
    assert (same.value, same.real) == (0, 0)
    assert not same.beyond_noise


def test_images_that_are_all_the_same_and_features_without_variance() -> None:
    real = rectified(100, 4)
    same = estimate(Features(np.ones((50, 5))), real, WHOLE)
    assert np.isfinite([same.value, *same.generated, *same.real]).all()
    assert interval(same).redraws == 0
    # |1 - μr|² + tr Σr, of which tr Σr / N is the mean's error.
    apart = 1 - real.moments.mean
    trace = np.trace(real.moments.covariance)
    assert same.value == pytest.approx(apart @ apart + trace - trace / 100)
    idle = Features(np.hstack([real.values, np.full((100, 1), 3.0)]))
    other = rectified(90, 5)
    padded = Features(np.hstack([other.values, np.full((90, 1), 3.0)]))
    assert estimate(padded, idle, WHOLE).value == pytest.approx(estimate(other, real, WHOLE).value)


def test_too_few_images_are_refused() -> None:
    assert enough(25, 25, 5)
    assert not enough(24, 1000, 5)
    with pytest.raises(ChorusError, match="24 generated and 100 real images are too few for an interval of fd_x in 5"):
        estimate(rectified(24, 0), rectified(100, 1), WHOLE)


def test_arms_of_other_real_images_make_no_pairs() -> None:
    one, other = (estimate(rectified(90, 1), rectified(n, 2), WHOLE) for n in (100, 120))
    with pytest.raises(ChorusError, match="100 and 120 real images make no pairs"):
        difference(one, other)


@pytest.mark.parametrize("size", [0.0, 0.3])
def test_the_bias_of_generated_images_is_told_by_their_moments_alone(size: float) -> None:
    random, real = np.random.default_rng(3), Gaussian(0).moments
    drawn = [frechet.moments(Gaussian(size).draw(200, random).values) for _ in range(400)]
    excess = np.array([frechet.distance(one, real) for one in drawn]) - true_distance(size)
    assert np.mean([bias_of(one, real) for one in drawn]) == pytest.approx(excess.mean(), rel=0.1)


def test_images_and_their_moments_tell_the_same_bias() -> None:
    random = np.random.default_rng(4)
    fake, real = Gaussian(0.2).draw(4000, random), Gaussian(0).draw(10**6, random)  # the real side's is next to none
    assert bias_of(fake.moments, real.moments) == pytest.approx(estimate(fake, real, WHOLE).bias, rel=0.05)


def test_what_is_no_sample_has_no_bias() -> None:
    assert bias_of(Gaussian(0.2).moments, Gaussian(0).moments) == 0
