"""How many families a rung carries: cases whose answer is known."""

import numpy as np
import pytest

from pipeline.evaluation.frechet import Moments, mean_distance
from pipeline.racing.prospects import BEND, Course, foretell

REAL = (Moments(np.zeros(2), np.eye(2)),)
RUNG = 1000.0  # images that one family would see if it alone went on


def at(x: float, y: float = 0.0):
    """What one extractor sees of a normal distribution in the plane."""
    return (Moments(np.array([x, y]), np.eye(2)),)


def shared(family: str, families: int) -> float:
    return RUNG / families


def test_a_course_is_read_off_the_last_two_snapshots_of_each_member() -> None:
    halved = Course.of([{250: 90.0, 500: 8.0, 1000: 4.0}])
    assert (halved.steepness, halved.seen) == (pytest.approx(1.0), 1000)
    quartered = {500: 8.0, 1000: 2.0}
    assert Course.of([{500: 8.0, 1000: 4.0}, quartered]).steepness == pytest.approx(1.5)
    # Of many snapshots that nearest to half of the images counts, not the last before: 900 to 1000 is mostly noise.
    assert Course.of([{250: 90.0, 520: 8.0, 900: 2.0, 1000: 4.0}]).steepness == pytest.approx(
        np.log(2) / np.log(1000 / 520)
    )
    # A member that has a single snapshot, as after a failure, says nothing.
    assert Course.of([quartered, {500: 3.0}]) == Course(pytest.approx(2.0), 750)


@pytest.mark.parametrize("member", [{1000: 4.0}, {500: 4.0, 1000: 4.0}, {500: 3.0, 1000: 4.0}, {500: 3.0, 1000: 0.0}])
def test_who_came_no_nearer_is_foretold_to_stay_where_it_is(member) -> None:
    course = Course.of([member])
    assert course == Course(0.0, 1000)
    assert course.shrinks(1e6) == 1


def test_a_course_goes_on_less_steeply_than_it_was() -> None:
    course = Course.of([{500: 8.0, 1000: 4.0}])
    assert course.shrinks(0) == 1
    assert course.shrinks(1000) == pytest.approx(2**-BEND)
    assert course.shrinks(3000) == pytest.approx(4**-BEND)


def test_one_goes_on_where_training_longer_gains_more_than_mixing() -> None:
    pool = {"a": [at(1)], "b": [at(1.1)]}  # on one side: mixing gains nothing
    courses = {family: Course(1.0, 1000) for family in pool}
    alone, both = foretell(["a", "b"], pool, REAL, courses, shared)
    assert alone == pytest.approx(mean_distance(at(1), REAL) * 2**-BEND, rel=1e-4)
    assert both == pytest.approx(mean_distance(at(1), REAL) * 1.5**-BEND, rel=1e-4)
    assert alone < both


def test_many_go_on_where_they_complement_one_another_and_learn_little_more() -> None:
    pool = {"left": [at(-1)], "right": [at(1)], "twin": [at(1)]}
    slow = {family: Course(0.05, 1000) for family in pool}
    alone, both, all_three = foretell(["left", "right", "twin"], pool, REAL, slow, shared)
    assert alone > 2 * both
    assert all_three > both  # one that adds nothing only costs the others their images


def test_the_course_of_a_part_counts_by_its_weight() -> None:
    """The far family has no weight in the mixture, so how it learns does not matter."""
    pool = {"near": [at(0.1)], "far": [at(50)]}
    found = [
        foretell(["near", "far"], pool, REAL, {"near": Course(1.0, 1000), "far": Course(steep, 1000)}, shared)
        for steep in (0.0, 3.0)
    ]
    assert found[0] == pytest.approx(found[1], rel=1e-6)
