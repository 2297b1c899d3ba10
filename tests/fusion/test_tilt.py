import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.frechet import Moments, mean_distance, moments
from pipeline.fusion.mixture import MeanDistance
from pipeline.fusion.tilt import bound, fit_tilt, potential, weighted_views

ALPHA = 0.3


def sides(n=1500):
    """Generated images and real moments, as two extractors see them: the real ones are shifted and narrower."""
    rng = np.random.default_rng(0)
    fake, real = rng.normal(size=(n, 3)), rng.normal(loc=(0.6, 0, 0), scale=(0.7, 1, 0.8), size=(n, 3))
    return (fake, fake[:, :1] / 3), tuple(map(moments, (real, real[:, :1] / 3)))


def objective(features, base, real, weights, strength):
    held = weights > 0
    return mean_distance(weighted_views(features, weights), real) + strength * float(
        weights[held] @ np.log(weights[held] / base[held])
    )


def test_the_potential_is_the_gradient_of_a_mixture_of_single_images():
    features, real = sides(60)
    rng = np.random.default_rng(1)
    weights = rng.dirichlet(np.ones(60))
    parts = [tuple(Moments(x[i], np.zeros((len(x[i]), len(x[i])))) for x in features) for i in range(60)]
    _, gradient = MeanDistance.of(parts, real)(weights)
    views = []
    for x in features:
        mean = weights @ x
        views.append(Moments(mean, ((x - mean) * weights[:, None]).T @ (x - mean)))
    np.testing.assert_allclose(potential(tuple(views), real)(features), gradient, atol=1e-9)


def test_the_potential_of_fewer_images_than_dimensions_is_the_gradient_among_them_and_finite_for_others():
    rng = np.random.default_rng(0)
    drawn, fresh = (rng.normal(size=(40, 64)) + 3 for _ in range(2))
    real, base = (moments(rng.normal(size=(400, 64))),), np.full(40, 1 / 40)
    step = 1e-2 * (rng.dirichlet(np.ones(40)) - base)

    def biased(weights):
        mean = weights @ drawn
        return mean_distance((Moments(mean, ((drawn - mean) * weights[:, None]).T @ (drawn - mean)),), real)

    form = potential((Moments(base @ drawn, np.cov(drawn, rowvar=False, ddof=0)),), real)
    assert form((drawn,)) @ step == pytest.approx((biased(base + step) - biased(base - step)) / 2, rel=1e-4)
    assert np.abs(form((fresh,))).max() < 10 * biased(base)


@given(
    scores=st.lists(st.floats(-30, 30), min_size=1, max_size=50),
    acceptance=st.floats(0.01, 1),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_the_bound_keeps_the_asked_share(scores, acceptance, seed):
    base = np.random.default_rng(seed).dirichlet(np.ones(len(scores)))
    values = np.array(scores)
    kept = np.exp(np.minimum(values - bound(values, base, acceptance), 0))
    assert base @ kept == pytest.approx(acceptance, abs=1e-6)


@pytest.mark.parametrize("strength", [0.1, 0.01])
def test_the_tilt_is_the_optimum_among_weights_that_rejection_can_reach(strength):
    features, real = sides()
    base = np.full(1500, 1 / 1500)
    scores = fit_tilt(features, base, real, strength, ALPHA)(features)

    def kept(values):
        return base * np.exp(np.minimum(values - bound(values, base, ALPHA), 0)) / ALPHA

    found = objective(features, base, real, kept(scores), strength)
    assert found < objective(features, base, real, base, strength)
    rng = np.random.default_rng(2)
    for scale in (0.01, 0.1, 1.0):
        noisy = scores + scale * rng.normal(size=1500)
        curved = scores + scale * features[0][:, 0] ** 2
        for other in (noisy, curved, scores * (1 - scale / 2), scores * (1 + scale)):
            assert objective(features, base, real, kept(other), strength) > found - 1e-5


def test_it_brings_fresh_images_to_the_real_moments():
    features, real = sides()
    base = np.full(1500, 1 / 1500)
    form = fit_tilt(features, base, real, 0.001, 0.2)
    fresh = np.random.default_rng(3).normal(size=(4000, 3))
    fresh = (fresh, fresh[:, :1] / 3)
    share = np.full(4000, 1 / 4000)
    kept = np.exp(np.minimum(form(fresh) - bound(form(fresh), share, 0.2), 0))
    before, after = (mean_distance(weighted_views(fresh, weights), real) for weights in (share, kept))
    assert after < 0.05 * before


def test_the_descent_ends_where_the_objective_is_no_number():
    features, real = sides(60)
    form = fit_tilt(features, np.full(60, 1 / 60), real, np.nan, ALPHA)
    assert not any(curvature.any() for curvature in form.curvatures)


def test_a_strong_divergence_leaves_what_the_sampler_gives():
    features, real = sides()
    base = np.full(1500, 1 / 1500)
    scores = fit_tilt(features, base, real, 1e6, ALPHA)(features)
    assert np.ptp(scores) < 1e-4
