"""Siblings against plain continuations: cases whose answer is known."""

import numpy as np
import pytest

from pipeline.evaluation.frechet import Moments, moments
from pipeline.racing.branches import compare, distance_on

REAL = (Moments(np.zeros(2), np.eye(2)),)


def at(x: float, y: float):
    """What one extractor sees of a normal distribution in the plane."""
    return (Moments(np.array([x, y]), np.eye(2)),)


def test_siblings_that_surround_the_real_images_beat_a_member_beside_them() -> None:
    (found,) = compare([at(5, 0)], {"a": [at(1, 0)]}, {"a": [at(-1, 0), at(1, 0)]}, REAL, REAL)
    assert found.plain == pytest.approx(1.0, rel=1e-3)
    # Half of each: mean 0, variance 2 along the first axis, so (√2 − 1)².
    assert found.siblings == pytest.approx((2**0.5 - 1) ** 2, rel=1e-3)
    assert found.kept


def test_siblings_that_are_worse_or_the_same_are_not_kept() -> None:
    worse, same = compare([], {"a": [at(1, 0)], "b": [at(1, 0)]}, {"a": [at(3, 0)], "b": [at(1, 0)]}, REAL, REAL)
    assert (worse.family, same.family) == ("a", "b")
    assert worse.kept is same.kept is False


def test_the_other_families_continue_plainly_in_both_mixtures() -> None:
    """Beside what `b` already covers, neither half of `a`'s rung changes anything."""
    (found,) = compare([], {"a": [at(4, 0)], "b": [at(0, 0)]}, {"a": [at(5, 0)]}, REAL, REAL)
    assert found.plain == pytest.approx(0, abs=1e-3)
    assert found.siblings == pytest.approx(0, abs=1e-3)


def test_weights_are_found_on_one_half_and_measured_on_the_other() -> None:
    fit, choose = at(1, 0), at(-1, 0)
    assert distance_on([at(1, 0), at(-1, 0)], fit, choose) == pytest.approx(4, rel=1e-2)


def test_siblings_that_are_only_more_images_of_the_same_are_not_always_kept() -> None:
    random, kept = np.random.default_rng(0), []
    for _ in range(30):
        real = [(moments(random.normal(size=(300, 12))),) for _ in range(2)]
        plain, *siblings = [(moments(random.normal(size=(400, 12)) + 0.1),) for _ in range(5)]
        (found,) = compare([], {"a": [plain]}, {"a": siblings}, *real)
        kept.append(found.kept)
    assert 8 <= sum(kept) <= 22
