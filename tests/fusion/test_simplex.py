import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.fusion.simplex import minimise, prune


def quadratic(matrix, vector):
    return lambda w: (float(w @ matrix @ w - 2 * w @ vector), 2 * matrix @ w - 2 * vector)


def test_interior_optimum_by_hand():
    # ½-½ is the optimum of w₁² + w₂² on the simplex, value ½.
    optimum = minimise(quadratic(np.eye(2), np.zeros(2)), 2)
    assert optimum.weights == pytest.approx([0.5, 0.5], abs=1e-6)
    assert optimum.value == pytest.approx(0.5)


def test_optimum_in_a_corner():
    optimum = minimise(lambda w: (float(w @ [3.0, 1.0, 2.0]), np.array([3.0, 1.0, 2.0])), 3)
    assert optimum.weights == pytest.approx([0, 1, 0], abs=1e-5)
    assert optimum.gap <= 1e-6


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(0, 10_000))
def test_gap_bounds_the_error_for_random_convex_quadratics(count, seed):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(count, count))
    function = quadratic(root @ root.T, rng.normal(size=count))
    optimum = minimise(function, count)
    assert optimum.weights.sum() == pytest.approx(1)
    assert (optimum.weights >= 0).all()
    others = rng.dirichlet(np.ones(count), size=500)
    assert min(function(w)[0] for w in others) >= optimum.value - optimum.gap - 1e-9
    assert optimum.gap <= 1e-5 * max(1, abs(optimum.value))


def test_prune_drops_the_silent_and_keeps_the_sum():
    assert prune(np.array([0.7, 0.2995, 0.0005])) == pytest.approx([0.7 / 0.9995, 0.2995 / 0.9995, 0])
