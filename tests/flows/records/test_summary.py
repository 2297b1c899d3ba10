"""What is shown and committed copes with whatever the stages have left."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows.checkout.git import commit_lock, winner_lines
from flows.records.summary import closing_lines, print_summary, read_results
from flows.stages.command import failure_message
from flows.stages.outcomes import CLEAN, FAILED, RAN, SKIPPED, Outcome, Result
from pipeline.errors import ChorusError
from tests.stub_checkout import call

METRICS: dict[str, Any] = {
    "split": "gate",
    "winner": "weighted",
    "headline": ["fd_classifier-b", "fd_selfsup"],
    "floor": {"fd_classifier-b": 0.23},
    "arms": [
        {"name": "mlp/r0", "kind": "member", "metrics": {"fd_classifier-b": 44.712}, "cost": 1.0},
        {"name": "weighted", "kind": "strategy", "metrics": {"fd_classifier-b": 6.5, "fd_selfsup": 1}},
    ],
}


def shown(root: Path, *outcomes: Outcome) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    print_summary(root, outcomes, console)
    return console.export_text()


def test_whole_table(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "metrics.json").write_text(json.dumps(METRICS))
    (tmp_path / "report" / "report.html").touch()
    (tmp_path / "registration.json").write_text('{"model": "chorus", "version": "3"}')
    text = shown(tmp_path, Outcome("fuse", RAN, 1.26), Outcome("judge", CLEAN))
    assert "1.3" in text
    assert "44.71" in text
    assert "→  weighted" in text
    assert "0.23" in text
    assert "chorus version 3" in text
    assert str(tmp_path / "report" / "report.html") in text


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"arms": [{}], "headline": ["x"]}', '{"winner": "best"}'])
def test_missing_and_odd_files(tmp_path: Path, content: str) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "metrics.json").write_text(content)
    assert "train@x" in shown(tmp_path, Outcome("train@x", RAN, 2.0))
    assert read_results(tmp_path)[1] == {}


def test_how_sure_the_difference_is(tmp_path: Path) -> None:
    differences = {
        "fd_classifier-b": {"beyond_noise": True, "value": -38.0},
        "fd_selfsup": {"beyond_noise": False, "value": 0.1},
    }
    arms = [{"name": "weighted", "kind": "strategy", "distances": {}, "differences": differences}]
    judged = {
        **METRICS,
        "shipped": {"kind": "strategy", "name": "weighted"},
        "intervals": {"confidence": 0.95, "arms": arms},
    }
    told = "With 95 % intervals: nearer by fd_classifier-b; within the noise by fd_selfsup."
    assert f"certainty   {told}" in closing_lines(tmp_path, judged, {})


@pytest.mark.parametrize(
    ("champion", "failed", "told"),
    [
        (None, [], "gate        passed; there is no champion yet"),
        ({"version": "2", "itself": False}, [], "gate        passed; the champion is version 2"),
        ({"version": "2", "itself": False}, ["recall", "smoke"], "failed: recall, smoke; the champion is version 2"),
        ({"version": "3", "itself": True}, [], "gate        passed; it is the champion, version 3"),
    ],
)
def test_what_the_gate_says(tmp_path: Path, champion: dict[str, Any] | None, failed: list[str], told: str) -> None:
    rules = [{"name": name, "verdict": "failed"} for name in failed] + [{"name": "size", "verdict": "passed"}]
    verdict = {"passed": not failed, "rules": rules, "champion": champion}
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "gate.json").write_text(json.dumps(verdict))
    [line] = closing_lines(tmp_path, {}, {})
    assert told in line


def test_old_results_are_not_shown_for_a_failed_run(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "metrics.json").write_text(json.dumps(METRICS))
    assert "44.71" not in shown(tmp_path, Outcome("train@x", FAILED, 2.0), Outcome("fuse", SKIPPED))


def test_winner_lines() -> None:
    assert winner_lines(METRICS, {"version": "3", "model": "m"}) == [
        "Winner: weighted (fd_classifier-b 6.5, fd_selfsup 1)",
        "Registered: m version 3",
    ]
    assert winner_lines({}, {}) == []


def test_a_student_that_is_shipped_is_named(tmp_path: Path) -> None:
    arm = {"name": "small", "kind": "student", "metrics": {"fd_classifier-b": 7.25}, "cost": 1.0}
    metrics = METRICS | {"arms": [*METRICS["arms"], arm], "shipped": {"kind": "student", "name": "small"}}
    assert winner_lines(metrics, {})[1] == "Shipped: student small (fd_classifier-b 7.25)"
    assert "shipped     student small" in closing_lines(tmp_path, metrics, {})
    assert len(closing_lines(tmp_path, METRICS | {"shipped": {"kind": "strategy", "name": "weighted"}}, {})) == 1


def test_failure_messages() -> None:
    said = ["Running stage 'x':", "> python -m pipeline x", "warming up", "chorus: no such folder", "   (name one)"]
    last = "ERROR: failed to reproduce 'x': failed to run: python -m pipeline x, exited with 2"
    assert failure_message(255, [*said, last]) == "chorus: no such folder\n   (name one)"
    assert failure_message(255, [*said, last[:-1] + "1"]).endswith("exited with 1")
    assert failure_message(255, ["ERROR: busy"]) == "ERROR: busy"
    assert failure_message(-9, []) == "ended with status -9 and said nothing"
    assert len(failure_message(1, [str(number) for number in range(50)]).splitlines()) == 12


def test_result_tells_what_went_wrong() -> None:
    result = Result((Outcome("a", RAN), Outcome("b", FAILED, 1, "one\ntwo"), Outcome("c", SKIPPED)))
    assert result.message == "b failed:\n    one\n    two\nnot run because of that: c"
    assert result.mlflow_status == "FAILED"
    assert Result((), stopped_by=2).mlflow_status == "KILLED"
    assert Result((Outcome("a", CLEAN),)).message == "all stages are up to date"


def test_lock_that_git_does_not_know_yet(done: Path) -> None:
    assert "committed dvc.lock" in commit_lock(done, {}, {})
    message = call(done, "git", "log", "-1", "--format=%B")
    assert message.splitlines()[0] == "Retrain x, y"
    assert "ingest" in message
    assert "nothing to commit" in commit_lock(done, {}, {})


def test_commit_that_git_refuses(done: Path) -> None:
    hook = done / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho not today >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(ChorusError, match="git commit: not today"):
        commit_lock(done, {}, {})
