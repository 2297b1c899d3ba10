"""Which sampler is shipped: the rule both ways."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.fusion.choosing import Arm, choose, why_not

FUSED = Arm("weighted", "strategy", distance=10.0, size=4000, passes=1.0, classes=10)
STUDENT = Arm("small", "student", distance=10.5, size=1000, passes=1.0, classes=10)


@pytest.mark.parametrize(
    ("changes", "tolerance", "words"),
    [
        ({}, None, "null"),
        ({"classes": 0}, 0.1, "asked for classes"),
        ({"distance": 11.5}, 0.1, "15% farther away, and 10% is allowed"),
        ({"size": 4000}, 0.1, "neither nearer nor smaller"),
        ({"size": 9000, "passes": 1.0}, 0.1, "neither nearer nor smaller"),
    ],
)
def test_what_keeps_a_student_back_is_said(changes, tolerance, words) -> None:
    student = replace(STUDENT, **changes)
    assert words in str(why_not(student, FUSED, tolerance))
    assert choose([student], FUSED, tolerance) is FUSED


def test_nothing_is_near_enough_to_what_cannot_be_told_from_real() -> None:
    assert why_not(STUDENT, replace(FUSED, distance=0.0), 0.1) == "it is farther away, and 10% is allowed"


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({}, 0.05),
        ({"distance": 10.0}, 0.0),
        ({"distance": 9.0, "size": 9000, "passes": 20.0}, 0.0),
        ({"size": 9000}, 0.1),
    ],
)
def test_a_student_is_shipped_that_gains_something_within_the_tolerance(changes, tolerance) -> None:
    student = replace(STUDENT, **changes)
    fused = replace(FUSED, passes=8.0) if "size" in changes and "distance" not in changes else FUSED
    assert why_not(student, fused, tolerance) is None
    assert choose([student], fused, tolerance) is student


def test_the_nearest_goes_out_and_of_equals_the_smallest() -> None:
    near, small = replace(STUDENT, name="near", distance=9.0), replace(STUDENT, name="tiny", distance=9.0, size=10)
    assert choose([STUDENT, near, small], FUSED, 0.1) is small


@given(st.lists(st.floats(0, 100)), st.floats(0, 2))
def test_what_is_shipped_is_never_farther_than_allowed(distances, tolerance) -> None:
    students = [replace(STUDENT, distance=distance) for distance in distances]
    shipped = choose(students, FUSED, tolerance)
    assert shipped.distance <= (1 + tolerance) * FUSED.distance
    assert shipped is FUSED or shipped.distance == min(distances)
