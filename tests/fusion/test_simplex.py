import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.fusion.simplex import Blocks, gap_at, minimise, prune


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


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(0, 10_000))
def test_any_start_leads_to_the_optimum_and_the_optimum_at_once(count, seed):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(count, count))
    function = quadratic(root @ root.T + np.eye(count), rng.normal(size=count))
    optimum = minimise(function, count)
    for start in (np.eye(count)[rng.integers(count)], rng.dirichlet(np.ones(count))):
        assert minimise(function, count, start=start).weights == pytest.approx(optimum.weights, abs=1e-3)
    assert minimise(function, count, start=optimum.weights, tolerance=1e-5).steps == 0


def test_prune_drops_the_silent_and_keeps_the_sum():
    assert prune(np.array([0.7, 0.2995, 0.0005])) == pytest.approx([0.7 / 0.9995, 0.2995 / 0.9995, 0])


def test_prune_keeps_all_of_many_equal_weights():
    assert prune(np.full(1500, 1 / 1500)) == pytest.approx(np.full(1500, 1 / 1500))


def test_each_block_of_a_product_finds_its_own_optimum_by_hand():
    # Two blocks of shares ¾ and ¼ that do not touch each other: w₁² + w₂² is least at ⅜ each, and 2w₃ + w₄ in a corner.
    def function(w):
        return float(w[0] ** 2 + w[1] ** 2 + 2 * w[2] + w[3]), np.array([2 * w[0], 2 * w[1], 2.0, 1.0])

    blocks = Blocks(np.array([0, 0, 1, 1]), np.array([0.75, 0.25]))
    optimum = minimise(function, blocks)
    assert optimum.weights == pytest.approx([0.375, 0.375, 0, 0.25], abs=1e-5)
    assert optimum.value == pytest.approx(2 * 0.375**2 + 0.25, abs=1e-5)
    # Half of the second block in the dear corner: all that moving it would save.
    assert gap_at(np.array([0.375, 0.375, 0.125, 0.125]), np.array([0.75, 0.75, 2, 1]), blocks) == pytest.approx(0.125)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_the_gap_bounds_the_error_on_products_of_simplices(seed):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(6, 6))
    function = quadratic(root @ root.T, rng.normal(size=6))
    blocks = Blocks(np.array([0, 0, 1, 1, 1, 2]), rng.dirichlet(np.ones(3)))
    optimum = minimise(function, blocks)
    assert np.bincount(blocks.block, optimum.weights) == pytest.approx(blocks.shares)
    others = (blocks.scaled(rng.exponential(size=6)) for _ in range(300))
    assert min(function(w)[0] for w in others) >= optimum.value - optimum.gap - 1e-9
    assert optimum.gap <= 1e-5 * max(1, abs(optimum.value))


def test_a_gap_that_rounding_hides_ends_the_search():
    steps = []

    def rough(w):
        steps.append(w)
        value, gradient = quadratic(np.eye(2), np.array([0.3, 0.1]))(w)
        return round(value, 6), gradient

    assert minimise(rough, 2, tolerance=1e-12).weights == pytest.approx([0.6, 0.4], abs=2e-3)
    assert len(steps) < 200
