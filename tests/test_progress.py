"""A line of progress is read as it was written, whatever it says; other lines are not taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.progress import Progress

words = st.from_regex(r"[a-zA-Z@._:-]+(?: [a-zA-Z@._:-]+)?", fullmatch=True)
names = st.from_regex(r"[a-z]+(?: [a-z0-9/._-]+)?", fullmatch=True)
units = st.sampled_from(["kimg", "images", "img"])
numbers = st.floats(0, 1e7)


lines = st.builds(
    Progress, names, numbers, numbers, units, numbers, units, st.integers(0, 10**6), st.one_of(st.just(""), words)
)


@given(lines)
def test_read_as_written(meant: Progress) -> None:
    line = str(meant)
    read = Progress.parse(line)
    assert read is not None
    assert str(read) == line
    for name in ("what", "unit", "per", "left", "note"):
        assert getattr(read, name) == getattr(meant, name)
    for name in ("done", "total", "rate"):
        shown = getattr(read, name)
        assert shown == pytest.approx(getattr(meant, name), abs=0.51 if shown >= 10 else 0.06)


def test_the_line_of_a_training() -> None:
    progress = Progress("train mlp/r0", 60.4, 1250, "kimg", 1234.5, "img", 4332, "G 0.71 D 1.30")
    assert str(progress) == "train mlp/r0  60/1,250 kimg  1,234 img/s  G 0.71 D 1.30  left 1:12:12"
    assert progress.percent == pytest.approx(4.832)


@pytest.mark.parametrize("line", ["", "train mlp/r0: going on from 60 kimg", "Running stage 'train@mlp':", "a  1/2 b"])
def test_other_lines(line: str) -> None:
    assert Progress.parse(line) is None


def test_percent_of_nothing_and_of_too_much() -> None:
    assert Progress("prepare", 0, 0, "images", 1, "images", 0).percent == 0
    assert Progress("prepare", 7, 5, "images", 1, "images", 0).percent == 100
