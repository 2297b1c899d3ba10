"""Shares and their intervals, against values worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.proportion import Proportion, gain


def test_interval_is_the_one_of_clopper_and_pearson() -> None:
    # 8 of 10, as tables of the exact binomial interval give it.
    assert Proportion(8, 10).interval == pytest.approx((0.4439, 0.9748), abs=1e-4)
    # Without a miss the lower end is the chance with which n hits have probability 2.5 %.
    assert Proportion(20, 20).interval == pytest.approx((0.025 ** (1 / 20), 1.0))
    assert Proportion(0, 20).interval == pytest.approx((0.0, 1 - 0.025 ** (1 / 20)))


def test_p_value_is_the_upper_tail_of_the_binomial() -> None:
    tail = sum(math.comb(12, hits) for hits in range(9, 13)) / 2**12
    assert Proportion(9, 12).p_value(0.5) == pytest.approx(tail)
    assert Proportion(0, 12).p_value(0.5) == pytest.approx(1)


def test_json_holds_share_and_interval() -> None:
    found = Proportion.of(np.array([True, False, True, True])).to_json()
    assert found["share"] == 0.75
    assert set(found) == {"share", "low", "high"}
    assert found["low"] < 0.75 < found["high"]


def test_gain_worked_by_hand() -> None:
    before = np.array([True, True, False, False, False, True, True, True, False, True])
    after = np.array([True, True, True, True, True, True, True, True, False, False])
    # Three won, one lost, of ten; half a count more in each cell makes 3.5 and 1.5 of twelve.
    spread = math.sqrt((3.5 + 1.5) / 12 - (2 / 12) ** 2) / math.sqrt(12)
    found = gain(before, after)
    assert found["share"] == pytest.approx(0.2)
    assert found["low"] == pytest.approx(2 / 12 - 1.96 * spread, abs=1e-4)
    assert found["high"] == pytest.approx(2 / 12 + 1.96 * spread, abs=1e-4)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_gain_is_antisymmetric_and_lies_in_its_interval(cells: list[tuple[bool, bool]]) -> None:
    before, after = (np.array(column) for column in zip(*cells, strict=True))
    forth, back = gain(before, after), gain(after, before)
    assert forth["share"] == -back["share"]
    assert forth["low"] == pytest.approx(-back["high"])
    assert -1 <= forth["low"] <= forth["share"] + 1e-12
    assert forth["share"] <= forth["high"] + 1e-12 <= 1 + 1e-9
    assert forth["low"] < forth["high"]
