"""Tables for Prefect's page, from whatever the stages have left."""

from typing import Any

import pytest

from flows.artifacts import arm_rows


def test_arms_with_the_judges_distances_the_nearest_first() -> None:
    arms = [
        {"name": "a", "kind": "member", "metrics": {"fd": 2.0, "kid": 1.0, "other": 0.0}},
        {"name": "b", "kind": "member", "metrics": {"kid": 3.0}},
        {"name": "c", "kind": "strategy", "metrics": {"fd": 1.0, "kid": 2.0}},
    ]
    assert arm_rows({"headline": ["fd", "kid"], "arms": arms}) == [
        {"name": "c", "kind": "strategy", "fd": 1.0, "kid": 2.0},
        {"name": "a", "kind": "member", "fd": 2.0, "kid": 1.0},
        {"name": "b", "kind": "member", "fd": None, "kid": 3.0},
    ]


@pytest.mark.parametrize("metrics", [{}, {"arms": [{}], "headline": ["x"]}, {"arms": None, "headline": None}])
def test_odd_files_have_no_rows(metrics: dict[str, Any]) -> None:
    assert arm_rows(metrics) == []
