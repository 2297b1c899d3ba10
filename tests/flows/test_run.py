"""The flow drives the very stages that `dvc repro` drives, and leaves the same behind."""

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from flows.stages.attempts import Patience
from flows.stages.outcomes import CLEAN, FAILED, RAN, RESTORED, SKIPPED, Outcome, Result
from tests.stub_checkout import dvc, order

Run = Callable[..., dict[str, Outcome]]


def what(outcomes: dict[str, Outcome]) -> dict[str, str]:
    return {name: outcome.what for name, outcome in outcomes.items()}


def lock(root: Path) -> object:
    return yaml.safe_load((root / "dvc.lock").read_text())


def test_whole_graph_equals_serial_repro(fresh: Path, done: Path, run: Run) -> None:
    outcomes = run(fresh)
    assert what(outcomes) == dict.fromkeys(["ingest", "train@x", "train@y", "register"], RAN)
    events = order(fresh)
    assert events[:2] == [("ingest", "begins"), ("ingest", "ends")]
    assert events[-2:] == [("register", "begins"), ("register", "ends")]
    assert lock(fresh) == lock(done)
    assert dvc(fresh, "status", "--json").strip() == "{}"
    assert "Running stage" not in dvc(fresh, "repro")


def test_prefects_temporary_server_listens_on_the_loopback_alone(prefect_server: str) -> None:
    port = int(prefect_server.split(":")[2].split("/")[0])
    processes = psutil.Process().children(recursive=True)
    listening = [c.laddr for p in processes for c in p.net_connections() if c.status == psutil.CONN_LISTEN]
    assert {address.ip for address in listening if address.port == port} == {"127.0.0.1"}


def test_forced_stages_alone_one_at_a_time_in_one_slot_and_the_most_urgent_first(done: Path, run: Run) -> None:
    outcomes = run(done, only=("train",), slots=1, urgency={"train@x": 1, "train@y": 2}, force=True)
    assert what(outcomes) == {"train@x": RAN, "train@y": RAN}
    assert order(done) == [("y", "begins"), ("y", "ends"), ("x", "begins"), ("x", "ends")]


def test_two_slots_overlap(done: Path, run: Run) -> None:
    (done / "work.py").write_text((done / "work.py").read_text().replace("time.sleep(0.2)", "time.sleep(2.5)"))
    run(done, only=("train",), slots=2, force=True)
    assert [event for _, event in order(done)] == ["begins", "begins", "ends", "ends"]


def test_after_repro_the_flow_runs_nothing(done: Path, run: Run) -> None:
    assert set(what(run(done)).values()) == {CLEAN}
    assert order(done) == []


def test_only_these_and_nothing_else(done: Path, run: Run) -> None:
    (done / "source.txt").write_text("other images")
    assert what(run(done, only=("ingest",))) == {"ingest": RAN}
    assert {name for name, _ in order(done)} == {"ingest"}


def test_changed_family_alone_and_lost_output_from_cache(done: Path, run: Run) -> None:
    path = done / "params.yaml"
    path.write_text(path.read_text().replace("lr: 0.1", "lr: 0.2"))
    (done / "model-y.txt").unlink()
    outcomes = run(done)
    # The text that a stage writes does not depend on the rate, so below it nothing has changed.
    assert what(outcomes) == {"ingest": CLEAN, "train@x": RAN, "train@y": RESTORED, "register": CLEAN}


def test_an_error_of_the_flow_itself_is_the_stage_s_failure(fresh: Path, run: Run) -> None:
    (fresh / ".chorus").mkdir()
    (fresh / ".chorus" / "stages").touch()  # where locks of stages are to lie
    outcomes = run(fresh)
    assert what(outcomes) == {"ingest": FAILED, "train@x": SKIPPED, "train@y": SKIPPED, "register": SKIPPED}
    assert "stages" in outcomes["ingest"].message
    assert Result(tuple(outcomes.values())).failed


def test_a_command_that_cannot_be_started_is_attempted_again(
    fresh: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, refused = subprocess.Popen, [OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))]

    def popen(command: list[str], **options: Any) -> Any:
        if "repro" in command and refused:
            raise refused.pop()
        return start(command, **options)

    monkeypatch.setattr("flows.stages.process.subprocess.Popen", popen)
    outcomes = run(fresh, only=("ingest",), patience=Patience(1, 0.1))
    assert (outcomes["ingest"].what, outcomes["ingest"].attempts) == (RAN, 2)


def test_failure_stops_what_depends_on_it_and_nothing_else(fresh: Path, run: Run) -> None:
    (fresh / "log").mkdir()
    (fresh / "log" / "x.wrong").touch()
    outcomes = run(fresh)
    assert what(outcomes) == {"ingest": RAN, "train@x": FAILED, "train@y": RAN, "register": SKIPPED}
    assert outcomes["train@x"].message == "chorus: wrong input"
    assert "train@x" not in yaml.safe_load((fresh / "dvc.lock").read_text())["stages"]
