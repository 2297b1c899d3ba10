"""The status is what the journal holds."""

import json
from pathlib import Path

import pytest

from flows.records.journal import TRIGGER, StageEntry, enter_refused, keeping
from flows.records.logs import JsonLog
from flows.stages.outcomes import CLEAN, FAILED, GIVEN_UP, RAN, SKIPPED
from flows.status import main


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (".git", ".dvc"):
        (tmp_path / name).mkdir()
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def lived_in(checkout: Path) -> Path:
    """A checkout with a good night, a bad one, a night without work and a refusal."""
    token = TRIGGER.set("nightly")
    with keeping(checkout, "first") as book:
        book.add(StageEntry(stage="ingest", what=RAN, seconds=2.0, why="never run"))
        book.add(StageEntry(stage="train@x", what=RAN, seconds=100.0, why="never run"))
    with keeping(checkout, "second", "ray") as book:
        book.add(StageEntry(stage="ingest", what=CLEAN, why="nothing changed"))
        book.add(StageEntry(stage="train@x", what=FAILED, seconds=50.0, why="out of memory [x]", attempts=3))
        book.add(StageEntry(stage="fuse", what=SKIPPED, why="train@x went wrong"))
        book.end("failed", "train@x failed:\n    out of memory")
    TRIGGER.reset(token)
    with keeping(checkout, "third") as book:
        book.end("nothing to do")
    enter_refused(checkout, "params.yaml is wrong")
    return checkout


def test_runs_costs_and_reasons(lived_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    states = [line for line in lines if " 0:00:0" in line]
    assert [line.split(maxsplit=2)[2] for line in states] == [
        "refused 0:00:00 command params.yaml is wrong",
        "nothing to do 0:00:00 command",
        "failed 0:00:00 nightly (ray) 1 up to date, 1 failed, 1 not run train@x: out of memory [x]",
        "completed 0:00:00 nightly 2 ran",
    ]
    # The stages are those of the newest run that had work; costs count every shown run.
    assert "ingest up to date 2.0 2.0 nothing changed" in lines
    assert "train@x failed 50.0 75.0 150.0 3 out of memory [x]" in lines
    assert "fuse not run train@x went wrong" in lines
    assert "all 50.0 152.0" in lines


def test_a_family_that_was_given_up_has_its_price_and_its_reason(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with keeping(checkout, "a") as book:
        book.add(StageEntry(stage="train@x", what=GIVEN_UP, seconds=7200.0, why="no longer finite"))
        book.add(StageEntry(stage="fuse", what=RAN, seconds=10.0))
    assert main([]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert any(line.endswith("1 given up, 1 ran train@x: no longer finite") for line in lines)
    assert "train@x given up 7200.0 7200.0 7200.0 no longer finite" in lines
    assert "all 7210.0 7210.0" in lines


def test_json(lived_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with keeping(lived_in, "now") as book:
        book.add(StageEntry(stage="ingest", what=RAN, seconds=4.0))
        log = JsonLog(lived_in, "now", ["ingest", "train@x"])
        log.began("train@x")
        log.said("train@x", "train x/r0  60/120 kimg  1,234 img/s  left 0:00:49")
        log.close()
        assert main(["--json", "--last", "4"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert main([]) == 0
        shown = capsys.readouterr().out
    assert "train@x is worked on: train x/r0: 60 of 120 kimg, 1,234 img/s, 0:00:49 left" in shown
    assert told["working"]["train@x"][0]["left"] == 49
    assert [run["state"] for run in told["runs"]] == ["running", "refused", "nothing to do", "failed"]
    assert told["runs"][3]["stages"][1] == {
        "stage": "train@x", "what": "failed", "seconds": 50.0, "why": "out of memory [x]", "attempts": 3
    }  # fmt: skip
    assert told["costs"] == {
        "train@x": {"times": 1, "mean_seconds": 50.0, "total_seconds": 50.0},
        "ingest": {"times": 1, "mean_seconds": 4.0, "total_seconds": 4.0},
    }


def test_no_run_and_no_checkout(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 0
    assert "no run" in capsys.readouterr().out
    (outside := tmp_path / "outside").mkdir()
    monkeypatch.chdir(outside)
    assert main(["--json"]) == 2
    assert "no checkout" in capsys.readouterr().err
