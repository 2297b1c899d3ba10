"""Locks name their holder, go with their process, and are the same for a stage whoever starts it."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from pipeline.__main__ import main, parser, stage_name
from pipeline.exclusive import BusyError, alone, held_by, stage_alone, stage_lock

ROOT = Path(__file__).parents[1]
HOLD = """\
import sys, time
from pathlib import Path
from pipeline.exclusive import alone
with alone(Path(sys.argv[1]), "it", "refuse", print):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """A process that holds the stage `train@mlp` of a checkout at `tmp_path`."""
    process = hold(stage_lock(tmp_path, "train@mlp"))
    yield process
    process.kill()
    process.wait()


def hold(path: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", HOLD, str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_refused_with_the_holders_name(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    with (
        pytest.raises(BusyError, match=rf"train@mlp is taken by process {holder.pid} on \S+ since 20\S+ \S+ \(-c "),
        stage_alone(tmp_path, "train@mlp", "refuse"),
    ):
        pass
    with stage_alone(tmp_path, "train@vae", "refuse"):  # another stage is free
        pass


def test_a_holder_is_known_until_its_process_is_gone(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    lock = stage_lock(tmp_path, "train@mlp")
    said = held_by(lock)
    assert said is not None
    assert said.startswith("-c ")
    record = json.loads(lock.read_text())
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert held_by(lock) is None
    # The next process with that id, which here is this one, began after the lock was taken.
    lock.write_text(json.dumps(record | {"pid": os.getpid(), "since": "2020-01-01 00:00:00+00:00"}))
    assert held_by(lock) is None


def test_a_killed_holder_leaves_no_lock(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with stage_alone(tmp_path, "train@mlp", "refuse"):
        assert f'"pid": {os.getpid()}' in stage_lock(tmp_path, "train@mlp").read_text()
    assert stage_lock(tmp_path, "train@mlp").read_text() == ""


def test_waiting_says_for_whom_and_ends_with_the_holder(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    said: list[str] = []

    def on_news(line: str) -> None:
        said.append(line)
        holder.kill()

    with alone(stage_lock(tmp_path, "train@mlp"), "train@mlp", "wait", on_news):
        pass
    assert len(said) == 1
    assert f"process {holder.pid}" in said[0]
    assert "waiting" in said[0]


def test_waiting_can_be_given_up(tmp_path: Path, holder: "subprocess.Popen[str]") -> None:
    given_up = threading.Event()
    with (
        pytest.raises(BusyError),
        alone(stage_lock(tmp_path, "train@mlp"), "it", "wait", lambda _: given_up.set(), given_up.is_set),
    ):
        pass


def test_one_process_holds_a_lock_once(tmp_path: Path) -> None:
    """A lock belongs to the open file, so that two threads of a process exclude each other too."""
    path = tmp_path / "lock"
    with alone(path, "it", "refuse", print), pytest.raises(BusyError), alone(path, "it", "refuse", print):
        pass


def test_the_stage_command_takes_the_lock(
    tmp_path: Path,
    holder: "subprocess.Popen[str]",
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["train", "mlp"]) == 2
    finally:
        signal.signal(signal.SIGTERM, before)
    assert f"train@mlp is taken by process {holder.pid}" in capsys.readouterr().err


def test_names_are_those_of_dvc() -> None:
    """By the expanded graph, with two later rungs and a student, every stage's command has the name of the stage."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    named = dict(expanded(stages, ["mlp"], ["small"], [{"rung": 2, "after": 1}, {"rung": 3, "after": 2}]))
    assert {"train@mlp", "rank@later1", "advance@later0-mlp", "evaluate-later@later1-mlp", "distill@small"} <= set(
        named
    )
    for stage, command in named.items():
        assert command.startswith("python -m pipeline ")
        assert stage_name(parser().parse_args(command.split()[3:])) == stage


def expanded(stages, families, students, rungs):
    for name, stage in stages.items():
        if "foreach" in stage:
            for key in {"${families}": families, "${students}": students}[stage["foreach"]]:
                yield f"{name}@{key}", stage["do"]["cmd"].replace("${key}", key)
        elif "matrix" in stage:
            for place, later in enumerate(rungs):
                command = stage["cmd"].replace("${item.later.rung}", str(later["rung"]))
                for family in families if "family" in stage["matrix"] else [None]:
                    end = f"-{family}" if family else ""
                    yield f"{name}@later{place}{end}", command.replace("${item.family}", str(family))
        else:
            yield name, stage["cmd"]
