"""Tables for Prefect's page, from whatever the stages have left."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flows.onlookers.artifacts import arm_rows, enlarged


def test_arms_with_the_judges_distances_the_nearest_first() -> None:
    arms = [
        {"name": "a", "kind": "member", "metrics": {"fd": 2.0, "kid": 1.0, "other": 0.0}},
        {"name": "b", "kind": "member", "metrics": {"kid": 3.0}},
        {"name": "c", "kind": "strategy", "metrics": {"fd": 1.00004, "kid": 2.0}},
    ]
    assert arm_rows({"headline": ["fd", "kid"], "arms": arms}) == [
        {"name": "c", "kind": "strategy", "fd": 1.0, "kid": 2.0},
        {"name": "a", "kind": "member", "fd": 2.0, "kid": 1.0},
        {"name": "b", "kind": "member", "fd": None, "kid": 3.0},
    ]


@pytest.mark.parametrize("metrics", [{}, {"arms": [{}], "headline": ["x"]}, {"arms": None, "headline": None}])
def test_odd_files_have_no_rows(metrics: dict[str, Any]) -> None:
    assert arm_rows(metrics) == []


@pytest.mark.parametrize(("width", "shown"), [(71, 639), (320, 640), (400, 400), (900, 900)])
def test_small_pictures_are_shown_in_whole_multiples(tmp_path: Path, width: int, shown: int) -> None:
    picture = Image.linear_gradient("L").resize((width, 10))
    picture.save(tmp_path / "sheet.png")
    larger = Image.open(io.BytesIO(enlarged(tmp_path / "sheet.png")))
    assert larger.size == (shown, 10 * shown // width)
    assert larger.resize(picture.size, Image.Resampling.NEAREST).tobytes() == picture.tobytes()
