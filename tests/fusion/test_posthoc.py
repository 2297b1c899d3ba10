"""Averages made after the training: the conversion, the fit, and the weights that come out of it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.fusion.posthoc import Profile, combination, combine, inner_products
from pipeline.training.ema import exponent, power_decay

WIDTHS = st.floats(0.02, 0.28)


def profile_of(profile, times):
    """The density itself, on a grid."""
    gamma = exponent(profile.sigma_rel)
    density = (gamma + 1) * times**gamma / profile.nimg ** (gamma + 1)
    return np.where(times <= profile.nimg, density, 0)


def tracked(walk, sigma_rel, at):
    """What training keeps of a walk (T×D) after the steps in `at`, one image a step, all in fp64."""
    average, kept = np.zeros(walk.shape[1]), []
    for step, weights in enumerate(walk, 1):
        decay = power_decay(1, step, exponent(sigma_rel))
        average = decay * average + (1 - decay) * weights
        if step in at:
            kept.append(average.copy())
    return kept


@settings(max_examples=30, deadline=None)
@given(WIDTHS, WIDTHS, st.floats(0.2, 1), st.floats(0.2, 1))
def test_inner_products_are_the_integrals(one, other, end, other_end):
    p, q = Profile(one, round(1000 * end)), Profile(other, round(1000 * other_end))
    times = (np.arange(400_000) + 0.5) / 400
    integral = (profile_of(p, times) * profile_of(q, times)).sum() / 400
    assert inner_products([p], [q])[0, 0] == pytest.approx(integral, rel=1e-3)


@pytest.mark.parametrize("scale", [1, 10**9])
def test_the_fit_is_the_least_squares_of_densities_on_a_grid(scale):
    """Against a solver that knows no closed form: the last coefficient is put as 1 minus the others."""
    stored = [Profile(width, scale * nimg) for nimg in (400, 700, 1000) for width in (0.05, 0.10)]
    wanted = Profile(0.15, scale * 1000)
    times = (np.arange(200_000) + 0.5) / 200 * scale
    columns = np.stack([profile_of(p, times) for p in stored], 1)
    rest = np.linalg.lstsq(columns[:, :-1] - columns[:, -1:], profile_of(wanted, times) - columns[:, -1], rcond=None)[0]
    found = combination(stored, wanted)
    np.testing.assert_allclose(found.coefficients, [*rest, 1 - rest.sum()], atol=2e-3)
    missing = columns @ found.coefficients - profile_of(wanted, times)
    share = np.sqrt((missing**2).mean() / (profile_of(wanted, times) ** 2).mean())
    assert found.error == pytest.approx(share, rel=1e-3)


def test_a_stored_profile_is_itself():
    stored = [Profile(width, nimg) for nimg in (500, 1000) for width in (0.05, 0.10)]
    for index, wanted in enumerate(stored[2:], 2):
        found = combination(stored, wanted)
        np.testing.assert_allclose(found.coefficients, np.eye(4)[index], atol=1e-9)
        assert found.error < 1e-6


def test_one_stored_profile_is_all_there_is():
    found = combination([Profile(0.05, 800)], Profile(0.1, 1000))
    assert found.coefficients.tolist() == [1.0]
    assert found.error > 0.5


def test_nothing_to_combine_is_an_error():
    with pytest.raises(ValueError, match="no stored average"):
        combination([], Profile(0.1, 1000))


@settings(max_examples=20, deadline=None)
@given(WIDTHS, st.integers(1, 12))
def test_coefficients_add_up_to_one_and_more_snapshots_fit_no_worse(width, count):
    def fit(count):
        ends = np.linspace(0, 10_000, count + 1)[1:].round()
        return combination([Profile(w, int(end)) for end in ends for w in (0.05, 0.10)], Profile(width, 10_000))

    assert fit(count).coefficients.sum() == pytest.approx(1)
    assert fit(2 * count).error <= fit(count).error + 1e-6  # the ends of the one are among those of the other


def test_the_combination_of_tracked_averages_is_the_tracked_average():
    """On a random walk. The stored ones to rounding; another within what the fit says is missing of its profile."""
    random = np.random.default_rng(0)
    steps, parameters = 4000, 50
    walk = random.normal(size=(steps, parameters)).cumsum(0) / np.sqrt(steps) + 5
    ends = list(range(400, steps + 1, 400))
    by_width = {width: tracked(walk, width, set(ends)) for width in (0.05, 0.10)}
    stored = [Profile(width, end) for width in by_width for end in ends]
    weights = [{"w": torch.from_numpy(kept)} for width in by_width for kept in by_width[width]]
    for width in (0.05, 0.10):
        found = combination(stored, Profile(width, steps))
        direct = by_width[width][-1]
        np.testing.assert_allclose(combine(found.coefficients, weights)["w"].numpy(), direct, rtol=1e-9)
    for width in (0.04, 0.07, 0.15, 0.2):
        found = combination(stored, Profile(width, steps))
        (direct,) = tracked(walk, width, {steps})
        gap = np.abs(combine(found.coefficients, weights)["w"].numpy() - direct)
        # Cauchy-Schwarz: the fit's error times the profile's norm, by that of the walk about its end.
        norm = np.sqrt(inner_products([Profile(width, steps)], [Profile(width, steps)])[0, 0])
        about = np.sqrt(((walk - walk[-1]) ** 2).sum(0))
        assert (gap <= found.error * norm * about + 1e-3).all()
        # And much nearer to it than the nearest stored average is.
        assert gap.mean() < 0.25 * min(np.abs(kept[-1] - direct).mean() for kept in by_width.values())


def test_the_sum_is_taken_in_double_precision():
    parts = [{"a": torch.tensor([1.0])}, {"a": torch.tensor([1e-8])}, {"a": torch.tensor([-1.0])}]
    summed = combine(np.array([1.0, 1.0, 1.0]), parts)["a"]
    assert summed.dtype == torch.float32
    assert summed.item() == pytest.approx(1e-8)
