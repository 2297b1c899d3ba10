"""The grid of members, and what the tables say of lines whose answer is known."""

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from ensemble_law import GRIDS, LARGEST, SIZES, Grid, sizes_at
from law_table import PAIR, Results, draw, tables

from pipeline.params import Family
from pipeline.training.loop import schedule


@pytest.mark.parametrize("grid", GRIDS.values(), ids=lambda grid: grid.name)
def test_every_ensemble_has_its_members(grid: Grid) -> None:
    reached: dict[int, int] = dict.fromkeys(SIZES, 0)
    for size in SIZES:
        family = Family(**grid.family(size))
        _, ends = schedule(family)
        for level in SIZES:
            wanted = level * grid.kimg * 1000 / family.batch
            reached[level] += family.replicas * (wanted in ends)
    for level, members in reached.items():
        assert members == max(sizes_at(level)) == LARGEST // level


def lines(seed: int = 0) -> list[dict[str, Any]]:
    """Members that find half of the modes, each mode by chance, 0.4 from the reals, 0.3 apart, worse at 1 kimg."""
    found: list[dict[str, Any]] = [{"kind": "real", "seed": seed, "mmd": 0.001, "modes": 1000, "kl": 0.02, "fd": 0.1}]
    names = [*PAIR, "k4/r0", "k4/r1"]
    for level in (1, 2, 4):
        common, far = {"seed": seed, "level": level, "nimg": 1000 * level}, 0.8 if level == 1 else 0.4
        sizes = [size for size in (1, 2, 4) if size * level <= 4]
        members = names[: 4 // level]
        for name in members:
            share = dict.fromkeys(map(str, sizes), 0.5)
            found.append({"kind": "member", **common, "member": name, "mmd": far, "chi": 0.5, "found": share})
        for pair in combinations(members, 2):
            share = dict.fromkeys(map(str, sizes), 0.25)
            own = {"members": list(pair), "mmd": 0.3, "chi": 0.25, "found": share}
            found.append({"kind": "pair", **common, **own})
        for size in sizes:
            mmd = far - (size - 1) / (2 * size) * 0.3
            own = {"mmd": mmd, "mmd_weighted": mmd, "modes": 1000 * (1 - 0.5**size), "kl": 0.2, "fd": 0.1}
            for chosen in combinations(members, size):
                found.append({"kind": "ensemble", **common, "size": size, "members": list(chosen), **own})
    return [*found, {"kind": "end", "seed": seed, "reader": 0.99, "flops_per_image": 1e7}]


def test_members_without_differences_are_predicted_exactly() -> None:
    found = Results(lines())
    assert set(found.cells) == {(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (4, 1)}
    for cell in found.cells.values():
        predicted = found.predicted(cell)
        assert predicted["mmd"] == pytest.approx(cell.mean("mmd"))
        assert predicted["missing"] == pytest.approx(cell.mean("missing"))
        assert found.by_any(cell, "mmd") == pytest.approx([predicted["mmd"]] * len(found.by_any(cell, "mmd")))


def test_tables_name_the_budget_from_which_an_ensemble_is_nearer(tmp_path: Path) -> None:
    found = Results([*lines(0), *lines(1)])
    text = tables(found)
    assert found.held_out("mmd") == pytest.approx(0)
    # Two members of 1 kimg measure 0.725 where one of 2 kimg measures 0.4, two of 2 kimg 0.325 where one of 4 has 0.4.
    assert "| 2 | 4 | 4 |" in text
    assert "| 4 | > 4 | > 4 |" in text
    assert "nan" not in text
    draw({"alike": found}, tmp_path / "law.png")
    assert (tmp_path / "law.png").stat().st_size > 10_000
