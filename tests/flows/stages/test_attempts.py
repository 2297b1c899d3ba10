"""Failures that can pass are tried again, others are not."""

import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from flows.devices.slots import Pool
from flows.planning.graph import Graph, read_graph
from flows.stages.attempts import LONGEST, Patience, limits_of, what_can_pass
from flows.stages.command import stage_environment
from flows.stages.execution import Execution
from flows.stages.outcomes import FAILED, RAN, STOPPED
from flows.stages.process import Processes
from pipeline.errors import ChorusError
from pipeline.exclusive import stage_alone

FAILED_TO_RUN = "ERROR: failed to reproduce 'train@x': failed to run: python work.py x, exited with"


@pytest.mark.parametrize(
    ("status", "line", "passes"),
    [
        (255, f"{FAILED_TO_RUN} 75", True),
        (255, f"{FAILED_TO_RUN} -9", True),
        (255, f"{FAILED_TO_RUN} 137", True),
        (255, f"{FAILED_TO_RUN} 143", True),
        (-signal.SIGKILL, "working", True),
        (255, "ERROR: 'raw.txt' is busy, it is being blocked by:", True),
        (255, f"{FAILED_TO_RUN} 1", False),
        (255, f"{FAILED_TO_RUN} 2", False),
        (255, f"{FAILED_TO_RUN} 74", False),
        (255, f"{FAILED_TO_RUN} -11", False),
        (255, f"{FAILED_TO_RUN} 130", False),
        (-signal.SIGSEGV, "working", False),
    ],
)
def test_what_can_pass(status: int, line: str, passes: bool) -> None:
    assert bool(what_can_pass(status, ["working on x", line])) == passes


def test_waits_double_up_to_a_limit_and_end() -> None:
    assert [Patience(3, 10).wait(attempt) for attempt in (1, 2, 3, 4)] == [10, 20, 40, None]
    assert Patience(20, 10).wait(15) == LONGEST
    assert Patience().wait(1) is None


def execution(root: Path, patience: Patience) -> Execution:
    return Execution(root, read_graph(root), Pool([{}]), Processes(), stage_environment(1), patience=patience)


def fail(root: Path, *statuses: int) -> None:
    """Let the first attempts at train@x end with these statuses (negative: by that signal)."""
    (root / "log").mkdir(exist_ok=True)
    (root / "log" / "x.statuses").write_text(" ".join(map(str, statuses)))
    text = (root / "work.py").read_text()
    (root / "work.py").write_text(
        text + ""
        if "statuses" in text
        else "import os, pathlib, sys\n"
        "left = pathlib.Path('log', sys.argv[1] + '.statuses')\n"
        "if left.exists() and (statuses := left.read_text().split()):\n"
        "    left.write_text(' '.join(statuses[1:]))\n"
        "    first = int(statuses[0])\n"
        "    os.kill(os.getpid(), -first) if first < 0 else os._exit(first)\n" + text
    )


def test_a_stage_is_attempted_until_it_succeeds(done: Path) -> None:
    (done / "raw.txt").write_text("other")
    fail(done, 75, -signal.SIGKILL)
    said: list[str] = []
    outcome = execution(done, Patience(3, 0.01)).run("train@x", [], said.append)
    assert (outcome.what, outcome.attempts) == (RAN, 3)
    assert outcome.seconds > 0
    tried_again = [line for line in said if "attempt" in line]
    assert tried_again[0] == "train@x: its cause can pass; attempt 2 of 4 in 0.01 s"
    assert "SIGKILL" in tried_again[1]


def test_a_stage_is_not_attempted_again_where_that_is_no_use(done: Path) -> None:
    (done / "raw.txt").write_text("other")
    fail(done, 75, 2)
    outcome = execution(done, Patience(3, 0.01)).run("train@x", [], lambda _: None)
    assert (outcome.what, outcome.attempts) == (FAILED, 2)


def test_limits_of_stages(done: Path) -> None:
    graph = read_graph(done)
    limits = limits_of(graph, 60, {"train": 120, "train@y": 5})
    assert limits == {"ingest": 3600, "train@x": 7200, "train@y": 300, "register": 3600}
    assert limits_of(graph, None, {"ingest": 5}) == {"ingest": 300}
    with pytest.raises(ChorusError, match="no stage 'tarin'"):
        limits_of(graph, 60, {"tarin": 5})


def test_an_overdue_stage_is_ended_and_not_attempted_again(done: Path) -> None:
    (done / "source.txt").write_text("other")
    (done / "log").mkdir()
    (done / "log" / "ingest.sleep").touch()
    run = execution(done, Patience(3, 0.01))
    run.limits = {"ingest": 3}
    outcome = run.run("ingest", [], lambda _: None)
    assert (outcome.what, outcome.attempts) == (FAILED, 1)
    assert "longer than 0.05 minutes" in outcome.message


def test_a_wait_ends_when_the_flow_is_stopped(done: Path) -> None:
    (done / "raw.txt").write_text("other")
    fail(done, 75)
    run = execution(done, Patience(1, 60))
    said: list[str] = []

    def log(line: str) -> None:
        said.append(line)
        if "attempt 2" in line:
            threading.Timer(0.2, run.processes.stop).start()

    began = time.monotonic()
    assert run.run("train@x", [], log).what == STOPPED
    assert time.monotonic() - began < 50


def test_a_stage_that_somebody_works_on_by_hand_is_left_to_them(done: Path) -> None:
    """DVC, which deletes a stage's outputs before it runs the command that would refuse, is not even started."""
    with stage_alone(done, "train@x", "refuse"):
        outcome = Execution(*forced(done), force=True).run("train@x", (), print)
    assert outcome.what == FAILED
    assert "train@x is taken by process" in outcome.message
    assert (done / "model-x.txt").exists()


def test_or_waited_for(done: Path) -> None:
    held = ExitStack()
    held.enter_context(stage_alone(done, "train@x", "refuse"))
    said: list[str] = []

    def on_line(line: str) -> None:
        said.append(line)
        held.close()

    outcome = Execution(*forced(done), force=True, busy="wait").run("train@x", (), on_line)
    assert (outcome.what, outcome.attempts) == (RAN, 1)
    assert said[0].endswith("waiting for it")


def forced(root: Path) -> tuple[Path, Graph, Pool, Processes, dict[str, str]]:
    return root, read_graph(root), Pool([{}]), Processes(), stage_environment(1)
