"""What looks on at a run tells what happened, and hurts nothing when it cannot."""

import io
import json
import logging
from pathlib import Path

import pytest
from prefect import flow, task
from prefect.artifacts import Artifact
from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console

from flows.onlookers.live import Board, shown
from flows.onlookers.progress import ProgressArtifacts
from flows.onlookers.watcher import Watcher, Watchers
from flows.records.logs import KEPT, JsonLog, last_progress, log_path
from flows.stages.outcomes import FAILED, RAN, Outcome
from pipeline.progress import Progress


def line(what: str, done: float) -> str:
    return str(Progress(what, done, 120, "kimg", 1234, "img", 75, "G 0.71 D 1.30"))


def watched(watcher: Watcher) -> None:
    """Tell of a family of two members, the second of which is half done, and of a stage that failed."""
    watcher.began("ingest")
    watcher.said("ingest", "chorus: [no] images")
    watcher.ended(Outcome("ingest", FAILED, 1.5, "chorus: [no] images"))
    watcher.began("train@x")
    watcher.said("train@x", line("train x/r0", 60))
    watcher.said("train@x", line("train x/r1", 60))


class Broken(Watcher):
    calls = 0

    def said(self, stage: str, line: str) -> None:
        self.calls += 1
        raise OSError("disk full")


def test_an_onlooker_that_fails_is_dropped(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    broken, log = Broken(), JsonLog(tmp_path, "a", ["ingest"])
    watched(Watchers(broken, log))
    assert broken.calls == 1
    assert capsys.readouterr().err == "chorus: Broken watches no longer: OSError('disk full')\n"
    assert len(log_path(tmp_path, "a").read_text().splitlines()) == 7


def test_json_log_and_where_a_run_is(tmp_path: Path) -> None:
    log = JsonLog(tmp_path, "a", ["ingest", "train@x"])
    watched(log)
    path = log_path(tmp_path, "a")
    working = last_progress(tmp_path, "a")
    assert {stage: [part.what for part in parts] for stage, parts in working.items()} == {
        "train@x": ["train x/r0", "train x/r1"]
    }
    assert working["train@x"][1].percent == 50
    log.ended(Outcome("train@x", RAN, 9.0))
    log.finished("failed", "ingest failed")
    log.close()
    with path.open("a") as file:
        file.write('{"torn')
    assert last_progress(tmp_path, "a") == {}
    assert last_progress(tmp_path, "no such run") == {}
    events = [json.loads(text) for text in path.read_text().splitlines() if not text.startswith('{"torn')]
    assert [event["event"] for event in events] == [
        "run began", "began", "said", "ended", "began", "progress", "progress", "ended", "run ended"
    ]  # fmt: skip
    assert all(event["run"] == "a" and event["time"].endswith("+00:00") for event in events)
    assert events[0]["stages"] == ["ingest", "train@x"]
    assert events[3]["what"] == "failed"
    assert (events[5]["rate"], events[5]["left"]) == (1234, 75)


def test_old_logs_go(tmp_path: Path) -> None:
    for number in range(KEPT + 3):
        log = JsonLog(tmp_path, f"run{number:02d}", [])
        log.finished("completed", "")
        log.close()
    left = [path.stem for path in (tmp_path / ".chorus" / "logs").iterdir()]
    assert sorted(left) == [f"run{number:02d}" for number in range(3, KEPT + 3)]


def test_board() -> None:
    clock = [100.0]
    board = Board(5, {"fuse": 10.0}, lambda: clock[0])
    board.began("fuse")
    clock[0] += 65
    watched(board)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(board)
    text = [" ".join(row.split()) for row in console.export_text().splitlines()]
    assert text[0] == "1 of 5 stages, 0:01:05: 1 failed"
    assert text[1] == "fuse 0:01:05 took 0:00:10 the last time!"
    assert text[2].startswith("train@x 0:00:00 ━")
    assert text[2].endswith("train x/r1: 60 of 120 kimg, 1,234 img/s, 0:01:15 left")
    board.ended(Outcome("train@x", RAN, 1.0))
    console.print(board)
    assert "train@x" not in console.export_text()


def test_terminal_gets_the_board_and_pipes_get_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    log, screen, pipe = logging.getLogger("test-board"), io.StringIO(), io.StringIO()
    plain = io.StringIO()
    handler = PrefectConsoleHandler(stream=plain)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    own = handler.console
    for console in (Console(file=screen, force_terminal=True, width=80), Console(file=pipe, force_terminal=False)):
        with shown(Board(3, {}), console):
            log.warning(line("train x/r0", 60))
            log.warning("a line of its own")
    assert "0 of 3 stages" in screen.getvalue()
    assert "a line of its own" in screen.getvalue()
    assert "kimg" not in screen.getvalue()
    assert pipe.getvalue() == ""
    assert "kimg" in plain.getvalue()
    assert handler.console is own
    assert handler.filters == []


def test_progress_artifacts_belong_to_the_task_and_reach_the_end(prefect_server: str) -> None:
    @task
    def stage(artifacts: Watcher) -> None:
        watched(artifacts)

    @flow(name="progress")
    def told() -> None:
        artifacts = ProgressArtifacts(every=0.05)
        stage(artifacts)
        artifacts.ended(Outcome("train@x", RAN, 9.0))
        artifacts.said("train@y", line("train y/r0", 60))
        artifacts.ended(Outcome("train@y", FAILED, 9.0))
        artifacts.close()

    told()
    found = {name: Artifact.get(key=f"train-{name}") for name in ("x-r0", "x-r1", "y-r0")}
    assert {name: artifact.data for name, artifact in found.items()} == {"x-r0": 100.0, "x-r1": 100.0, "y-r0": 50.0}
    assert found["x-r0"].task_run_id
    assert found["y-r0"].description == "train y/r0: failed"
