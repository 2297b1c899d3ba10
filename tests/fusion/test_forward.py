import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.fusion.forward import forward_selection
from pipeline.fusion.simplex import minimise


def quadratic(seed, count):
    random = np.random.default_rng(seed)
    root, vector = random.normal(size=(count, count)), random.normal(size=count)
    return lambda w: (float(w @ root @ root.T @ w - 2 * w @ vector), 2 * root @ root.T @ w - 2 * vector)


def selected(function, count, steps):
    return forward_selection(function, count, steps, lambda weights: function(weights)[0])


def literally(function, count, steps):
    """Every addition evaluated, as the paper has it."""
    picks, values = [], []
    for _ in range(steps):
        trials = [function(np.bincount([*picks, part], minlength=count) / (len(picks) + 1))[0] for part in range(count)]
        picks.append(int(np.argmin(trials)))
        values.append(min(trials))
    return picks[: int(np.argmin(values)) + 1], min(values)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_the_path_is_the_one_that_evaluating_everything_takes(seed, count):
    function = quadratic(seed, count)
    path = selected(function, count, 15)
    picks, value = literally(function, count, 15)
    assert path.value == pytest.approx(value, abs=2e-7)
    assert list(path.picks) == picks[: len(path.picks)]
    assert function(path.weights(count))[0] == pytest.approx(path.value)
    assert path.value >= minimise(function, count).value - 1e-6


def test_fewer_additions_are_evaluated_than_there_are():
    path = selected(quadratic(0, 30), 30, 50)
    assert path.evaluations < 30 * 50 / 2


def test_a_gradient_is_taken_of_what_is_added_alone():
    function, gradients = quadratic(0, 6), []
    path = forward_selection(lambda w: gradients.append(w) or function(w), 6, 20, lambda w: function(w)[0])
    assert path == selected(function, 6, 20)
    assert len(gradients) == 20 < path.evaluations


def test_a_part_that_is_best_alone_and_in_every_mixture_is_the_whole_path():
    path = selected(lambda w: (float(w @ [2.0, 1.0]), np.array([2.0, 1.0])), 2, 50)
    assert path.picks == (1,)
    assert path.weights(2).tolist() == [0, 1]


def test_of_identical_parts_the_first_is_taken_and_no_longer_bag():
    path = selected(lambda w: (float(w @ w) * 0 + 3.0, np.zeros(3)), 3, 50)
    assert path.picks == (0,)


def test_a_third_and_two_thirds_are_found_exactly():
    target = np.array([1 / 3, 2 / 3])
    path = selected(lambda w: (float((w - target) @ (w - target)), 2 * (w - target)), 2, 50)
    assert path.picks == (1, 0, 1)
    assert path.value == pytest.approx(0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_the_path_is_the_same_where_the_function_bends_down(seed, count):
    convex, bend = quadratic(seed, count), np.random.default_rng(seed).uniform(0, 3, size=count)

    def function(w):
        value, gradient = convex(w)
        return value - float(w**2 @ bend), gradient - 2 * w * bend

    path = forward_selection(function, count, 15, lambda w: function(w)[0], bend)
    picks, value = literally(function, count, 15)
    assert path.value == pytest.approx(value, abs=2e-7)
    assert list(path.picks) == picks[: len(path.picks)]
