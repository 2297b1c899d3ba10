"""Every run leaves its line, also one that was refused, failed or killed."""

import fcntl
import json
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flows.planning.graph import Graph, Stage
from flows.planning.plan import plan
from flows.records import journal
from flows.records.journal import TRIGGER, StageEntry, keeping, read, running
from flows.records.reasons import Account
from flows.stages.outcomes import CLEAN, FAILED, RAN, RESTORED, SKIPPED, Outcome
from pipeline.errors import ChorusError
from pipeline.files import write_bytes

# A run that is killed in the middle: the book is open, one stage was entered, a second one half.
KILLED = """\
import os, signal, sys
from pathlib import Path
from flows.records.journal import TRIGGER, StageEntry, keeping
root = Path(sys.argv[1])
TRIGGER.set("nightly")
with keeping(root, "dead") as book:
    book.add(StageEntry(stage="ingest", what="ran", seconds=3.0))
    (root / ".chorus/runs/dead.jsonl").open("a").write('{"stage": "train@x", "wh')
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in (".git", ".dvc"):
        (tmp_path / name).mkdir()
    (tmp_path / "dvc.yaml").touch()
    return tmp_path


def test_a_line_for_each_run_with_its_stages(checkout: Path) -> None:
    token = TRIGGER.set("nightly")
    with keeping(checkout, "a", "ray") as book:
        assert [entry.state for entry in running(checkout)] == ["running"]
        threads = [
            threading.Thread(target=book.add, args=(StageEntry(stage=f"s{n}", what=RAN, seconds=n),)) for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    TRIGGER.reset(token)
    with pytest.raises(ChorusError, match="taken"), keeping(checkout) as book:
        raise ChorusError("taken by mlflow://me:secret@host")
    with pytest.raises(ZeroDivisionError), keeping(checkout):
        print(1 / 0)
    with keeping(checkout) as book:
        book.end(journal.IDLE)
    journal.enter_refused(checkout, "params.yaml is wrong")
    assert running(checkout) == []
    lines = [json.loads(line) for line in (checkout / ".chorus" / "journal.jsonl").read_text().splitlines()]
    assert [line["state"] for line in lines] == ["completed", "refused", "failed", "nothing to do", "refused"]
    assert (lines[0]["id"], lines[0]["driver"], lines[0]["trigger"]) == ("a", "ray", "nightly")
    assert {stage["stage"] for stage in lines[0]["stages"]} == {f"s{n}" for n in range(8)}
    assert lines[1]["message"] == "taken by mlflow://***@host"
    assert lines[2]["message"] == "ZeroDivisionError: division by zero"
    assert len({line["id"] for line in lines}) == 5


def test_the_seconds_that_a_stage_last_took(checkout: Path) -> None:
    nights = ((RAN, 60.0), (RAN, 40.0), (RESTORED, 1.0), (CLEAN, 0.0), (FAILED, 2.0))
    for what, seconds in nights:
        with keeping(checkout) as book:
            book.add(StageEntry(stage="train@x", what=what, seconds=seconds))
    assert journal.expected_seconds(checkout) == {"train@x": 40.0}


def test_no_journal_and_no_checkout(tmp_path: Path, checkout: Path) -> None:
    assert journal.expected_seconds(checkout) == {}
    (outside := tmp_path / "outside").mkdir()
    journal.enter_refused(outside, "wrong")
    assert not (outside / ".chorus").exists()
    with pytest.raises(ChorusError, match="no checkout"), keeping(outside):
        pass


def test_a_torn_line_is_passed_over_and_hides_no_other(checkout: Path) -> None:
    journal.enter_refused(checkout, "first")
    path = checkout / ".chorus" / "journal.jsonl"
    path.write_bytes(path.read_bytes() + b'{"id": "torn", "sta')
    journal.enter_refused(checkout, "second")
    path.write_bytes(path.read_bytes() + b"\xff\xfe no JSON\n[]\n")
    assert [entry.message for entry in read(checkout)] == ["first", "second"]


def test_a_killed_run_is_entered_by_the_next(checkout: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(checkout)], check=False)
    assert ended.returncode == -9
    assert read(checkout) == []
    assert [entry.state for entry in running(checkout)] == ["killed"]
    with keeping(checkout, "next"):
        assert [entry.id for entry in running(checkout)] == ["next"]
    dead, following = read(checkout)
    assert (dead.id, dead.state, dead.trigger, following.id) == ("dead", "killed", "nightly", "next")
    assert [stage.stage for stage in dead.stages] == ["ingest"]
    assert journal.expected_seconds(checkout) == {"ingest": 3.0}
    assert dead.ended >= dead.started


def test_a_run_killed_while_it_ended_counts_once(checkout: Path) -> None:
    with keeping(checkout, "a") as book:
        left = (checkout / ".chorus" / "runs" / "a.jsonl").read_text()
        book.end("failed", "why")
    dead = json.loads(left) | {"process": f"{platform.node()}:{os.getpid()}:0.00"}
    (checkout / ".chorus" / "runs" / "a.jsonl").write_text(json.dumps(dead) + "\n")
    journal.enter_refused(checkout, "wrong")
    assert [entry.state for entry in read(checkout)] == ["failed", "refused"]


def test_an_old_journal_is_cut(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "LARGEST", 4000)
    for number in range(40):
        journal.enter_refused(checkout, f"number {number}")
    kept = [entry.message for entry in read(checkout)]
    assert kept == [f"number {number}" for number in range(40 - len(kept), 40)]
    assert 5 < len(kept) < 40


def test_a_line_goes_to_the_journal_that_was_cut_while_it_waited(checkout: Path) -> None:
    journal.enter_refused(checkout, "before")
    path = checkout / ".chorus" / "journal.jsonl"
    with path.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = threading.Thread(target=journal.enter_refused, args=(checkout, "waited"))
        waiting.start()
        waiting.join(1)
        assert waiting.is_alive()
        write_bytes(path, b"")
    waiting.join()
    assert [entry.message for entry in read(checkout)] == ["waited"]


def test_a_run_lives_though_the_clock_was_set(checkout: Path) -> None:
    """The time of the boot, from which starts are counted, moves with it."""
    with keeping(checkout, "a"):
        path = checkout / ".chorus" / "runs" / "a.jsonl"
        opened = json.loads(path.read_text())
        process, _, start = opened["process"].rpartition(":")
        path.write_text(json.dumps(opened | {"process": f"{process}:{float(start) - 3:.2f}"}) + "\n")
        assert [entry.state for entry in running(checkout)] == ["running"]


def test_a_journal_that_cannot_be_written_stops_nothing(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (checkout / ".chorus").write_text("a file where the folder should be")
    with keeping(checkout) as book:
        book.add(StageEntry(stage="ingest", what=RAN))
    assert "the journal of this run cannot be written" in capsys.readouterr().err


def test_reasons(checkout: Path) -> None:
    stages = [
        Stage("ingest", (), ()),
        Stage("train@x", ("ingest",), ("params changed: families.x.lr",)),
        Stage("train@y", ("ingest",), ("lost: model-y",), cached=True),
        Stage("evaluate@x", ("train@x",), ()),
        Stage("evaluate@y", ("train@y",), ()),
        Stage("fuse", ("evaluate@x", "evaluate@y"), ()),
    ]
    graph = Graph(stages)
    account = Account(graph, plan(graph, [stage.name for stage in stages]), lambda entry: None)
    outcomes = [
        Outcome("ingest", CLEAN),
        Outcome("train@x", FAILED, 1.23456, "Traceback\nOut of memory"),
        Outcome("train@y", RESTORED, 1.0),
        Outcome("evaluate@y", CLEAN),
        Outcome("evaluate@x", SKIPPED),
        Outcome("fuse", SKIPPED),
    ]
    entries = {outcome.stage: account.entry(outcome) for outcome in outcomes}
    assert {name: entry.why for name, entry in entries.items()} == {
        "ingest": "nothing changed",
        "train@x": "Out of memory",
        "train@y": "lost: model-y",
        "evaluate@y": "nothing changed",
        "evaluate@x": "train@x went wrong",
        "fuse": "train@x went wrong",
    }
    assert entries["train@x"].seconds == 1.235
