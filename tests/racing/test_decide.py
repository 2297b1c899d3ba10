"""Which families the mixture can do without: cases whose answer is known."""

import numpy as np
import pytest

from pipeline.evaluation.frechet import Moments, mean_distance, moments
from pipeline.fusion.mixture import MeanDistance
from pipeline.racing.decide import Standing, best_distance, halve, marginal_gains

REAL = (Moments(np.zeros(2), np.eye(2)),)


def at(x: float, y: float, spread: float = 1.0):
    """What one extractor sees of a normal distribution in the plane."""
    return (Moments(np.array([x, y]), spread * np.eye(2)),)


def by_family(standings: list[Standing]) -> dict[str, Standing]:
    return {standing.family: standing for standing in standings}


def test_gain_is_what_the_best_mixture_loses() -> None:
    pool = {"left": [at(-2, 0)], "right": [at(2, 0)], "far": [at(9, 9)]}
    gains = marginal_gains(pool, REAL)
    both = best_distance([at(-2, 0), at(2, 0)], REAL)
    assert best_distance([at(-2, 0)], REAL) == pytest.approx(mean_distance(at(-2, 0), REAL))
    assert gains["right"] == pytest.approx(best_distance([at(-2, 0), at(9, 9)], REAL) - both, rel=1e-3)
    assert gains["far"] == 0.0
    assert gains["left"] > 1


def test_a_family_that_complements_stays_before_one_that_is_nearer_alone() -> None:
    """Two on one side replace one another; the one on the other side is farther away and yet needed."""
    pool = {"near": [at(-1.5, 0)], "nearly": [at(-1.6, 0)], "other": [at(2.5, 0)]}
    standings = halve(pool, REAL, keep=2)
    assert {s.family for s in standings if s.goes_on} == {"near", "other"}
    dropped = standings[-1]
    assert (dropped.family, dropped.place, dropped.goes_on) == ("nearly", 3, False)
    assert dropped.best == pytest.approx(1.6**2)


def test_of_twins_one_stays() -> None:
    """Beside its twin neither gains anything, and both are needed more than the third."""
    pool = {"twin": [at(0.5, 0)], "third": [at(4, 4)], "twin-b": [at(0.5, 0)]}
    gains = marginal_gains(pool, REAL)
    assert gains["twin"] == gains["twin-b"] == 0.0
    standings = halve(pool, REAL, keep=1)
    assert standings[0].family in ("twin", "twin-b")
    assert standings[0].gain is None
    assert [s.place for s in standings] == [1, 2, 3]


def test_gains_of_nothing_are_decided_by_the_own_distance() -> None:
    """All but the perfect family add nothing; those that are nearer alone stay."""
    pool = {"a": [at(3, 0)], "b": [at(2, 0), at(5, 0)], "c": [at(0, 0)], "d": [at(4, 0)]}
    standings = halve(pool, REAL, keep=2)
    assert [s.family for s in standings] == ["c", "b", "a", "d"]
    assert [s.goes_on for s in standings] == [True, True, False, False]
    assert by_family(standings)["b"].best == pytest.approx(4)


def test_the_order_of_the_pool_does_not_decide() -> None:
    random = np.random.default_rng(0)
    families = {name: [at(*random.normal(0, 2, 2)) for _ in range(2)] for name in "abcde"}
    first = halve(families, REAL, keep=3)
    again = halve(dict(reversed(families.items())), REAL, keep=3)
    assert [s.family for s in first] == [s.family for s in again]
    assert sum(s.goes_on for s in first) == 3


def test_all_stay_where_there_is_room() -> None:
    assert [s.goes_on for s in halve({"a": [at(1, 0)], "b": [at(2, 0)]}, REAL, keep=5)] == [True, True]


def test_what_one_extractor_overlooks_another_sees() -> None:
    """By the first extractor alone the noisy family is nearer; by both it is far away."""
    clean, noisy, real = at(1, 0) + at(1, 0), at(0, 0) + at(0, 0, spread=25.0), REAL + REAL
    first = {"clean": [clean[:1]], "noisy": [noisy[:1]]}
    assert [s.family for s in halve(first, REAL, keep=1) if s.goes_on] == ["noisy"]
    assert [s.family for s in halve({"clean": [clean], "noisy": [noisy]}, real, keep=1) if s.goes_on] == ["clean"]


def test_families_alike_gain_little_by_their_number() -> None:
    random = np.random.default_rng(0)
    real = (moments(random.normal(size=(5000, 24))),)
    gains, seeming = [], []
    for _ in range(20):
        parts = [(moments(random.normal(size=(600, 24)) + 0.1),) for _ in range(3)]
        gains.append(best_distance(parts[:1], real) - best_distance(parts, real))
        seeming.append(mean_distance(parts[0], real) - MeanDistance.of(parts, real).optimum().value)
    # What is left is that the nearest by chance is taken.
    assert np.mean(gains) < 0.3 * np.mean(seeming)
