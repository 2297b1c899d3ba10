"""A node's program without Ray: what it computes on, and how it ends."""

import io
import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from flows.cluster.handover import pack, prepare
from flows.cluster.lock import read_lock
from flows.cluster.node import FOLDER, STOP
from flows.cluster.order import Order
from flows.cluster.station import START
from flows.cluster.surroundings import surroundings
from flows.stages.command import OVERDUE
from pipeline.exits import CAN_PASS
from tests.cluster.conftest import end
from tests.stub_checkout import call, dvc

pytestmark = pytest.mark.slow
WITH_CHECKPOINT = """\
import pathlib, sys, time
checkpoint = pathlib.Path(".checkpoints/x/checkpoint")
if not checkpoint.exists():
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("half")
    time.sleep(60)
print("going on from", checkpoint.read_text())
pathlib.Path(sys.argv[-1]).write_text(checkpoint.read_text() + " and half")
"""


class Node:
    """A node's program in a folder of its own, with what the head of a checkout would send."""

    def __init__(self, head: Path, folder: Path) -> None:
        self.head, self.folder = head, folder
        handover = prepare(head)
        self.order = {
            "commit": handover.commit,
            "lock": read_lock(head),
            "remote": handover.remote,
            "threads": 1,
            "surroundings": surroundings(),
        }
        with tarfile.open(fileobj=io.BytesIO(pack(head))) as cargo:
            cargo.extractall(folder / "cargo", filter="data")

    def begin(self, **order: Any) -> "subprocess.Popen[str]":
        cargo = self.folder / "cargo"
        program = [str(cargo / "program"), str(cargo / "repository"), str(self.folder / "result.json")]
        process = subprocess.Popen(
            [sys.executable, "-c", START, *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": "/usr/bin:/bin", FOLDER: str(self.folder), "HOME": str(self.folder)},
        )
        assert process.stdin is not None
        process.stdin.write(Order(**{**self.order, **order}).dump() + "\n")
        process.stdin.flush()
        return process

    @property
    def result(self) -> Any:
        return json.loads((self.folder / "result.json").read_text())


def test_a_node_computes_on_the_inputs_of_the_lock_and_not_on_former_ones(with_remote: Path, tmp_path: Path) -> None:
    """The stage's own entry in the lock is a former one, which DVC takes for true where inputs are missing."""
    before = yaml.safe_load((with_remote / "dvc.lock").read_text())["stages"]
    (with_remote / "source.txt").write_text("other images")
    call(with_remote, "git", "commit", "-qam", "Other images")
    dvc(with_remote, "repro", "-q", "-s", "ingest")
    dvc(with_remote, "push", "-q", "ingest")
    node = Node(with_remote, tmp_path / "node")
    process = node.begin(stage="train@x", upstream=["ingest"])
    assert process.stdout is not None
    said = process.stdout.read()  # its input stays open: the end of that is an order to stop
    assert process.wait() == 0, said
    assert "working on x" in said
    dvc(with_remote, "repro", "-q", "-s", "train@x")
    after = yaml.safe_load((with_remote / "dvc.lock").read_text())["stages"]
    assert node.result == after["train@x"] != before["train@x"]


def test_a_transfer_that_fails_can_pass(with_remote: Path, tmp_path: Path) -> None:
    """The head has pushed nothing here: to a node a remote that lacks the inputs looks as one that is away."""
    process = Node(with_remote, tmp_path / "node").begin(stage="train@x", upstream=["ingest"])
    assert process.wait(timeout=100) == CAN_PASS


@pytest.mark.parametrize("damage", ["locks", "repository", "configuration"])
def test_what_a_killed_job_left_does_not_stop_the_next(with_remote: Path, tmp_path: Path, damage: str) -> None:
    call(tmp_path, "git", "init", "-q")  # as in a home folder whose settings are in git
    node = Node(with_remote, tmp_path / "node")
    first = node.begin(stage="ingest", upstream=[], force=True)
    assert first.stdout is not None
    said = first.stdout.read()
    assert first.wait() == 0, said
    (clone,) = (tmp_path / "node").glob("*/clones/0")
    (clone / ".checkpoints").mkdir()
    if damage == "locks":
        for name in (".git/index.lock", ".git/shallow.lock", ".git/HEAD.lock"):
            (clone / name).touch()
        (clone / ".dvc" / "tmp" / "rwlock").write_text('{"write": {"')
    elif damage == "repository":
        (clone / ".git" / "HEAD").write_text("")
    else:
        (clone / ".dvc" / "config.local").write_text("[core")
    again = node.begin(stage="ingest", upstream=[], force=True)
    assert again.stdout is not None
    said = again.stdout.read()
    assert again.wait() == 0, said
    assert ("it is made anew" in said) == (damage != "locks")
    assert (clone / ".checkpoints").is_dir()
    assert not (tmp_path / "work.py").exists()


def test_a_node_ends_a_stage_that_takes_too_long(with_remote: Path, tmp_path: Path) -> None:
    (with_remote / "work.py").write_text("import time\ntime.sleep(60)\n")
    call(with_remote, "git", "commit", "-qam", "Sleep")
    process = Node(with_remote, tmp_path / "node").begin(stage="ingest", upstream=[], force=True, limit=3)
    assert process.wait(timeout=50) == OVERDUE


def test_another_node_goes_on_from_the_copies_of_a_lost_ones_checkpoints(with_remote: Path, tmp_path: Path) -> None:
    (with_remote / "work.py").write_text(WITH_CHECKPOINT)
    call(with_remote, "git", "commit", "-qam", "Work with a checkpoint")
    kept = {"stage": "ingest", "upstream": [], "force": True, "checkpoints": str(tmp_path / "kept")}
    copy = tmp_path / "kept" / "ingest" / "x" / "checkpoint"
    lost = Node(with_remote, tmp_path / "lost").begin(**kept)
    try:
        deadline = time.monotonic() + 60
        while not copy.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        end(psutil.Process(lost.pid))
    node = Node(with_remote, tmp_path / "node")
    process = node.begin(**kept)
    assert process.stdout is not None
    said = process.stdout.read()
    assert process.wait() == 0, said
    assert "going on from half" in said
    assert node.result["outs"][0]["size"] == len("half and half")
    assert not copy.exists()


def test_a_node_that_is_told_to_stop_ends_its_stage(with_remote: Path, tmp_path: Path) -> None:
    (with_remote / "work.py").write_text("import time\nprint('asleep', flush=True)\ntime.sleep(60)\n")
    call(with_remote, "git", "commit", "-qam", "Sleep")
    process = Node(with_remote, tmp_path / "node").begin(stage="ingest", upstream=[], force=True)
    assert process.stdin is not None
    assert process.stdout is not None
    for line in process.stdout:
        if "asleep" in line:
            process.stdin.write(f"{STOP}\n")
            process.stdin.flush()
            break
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert not (tmp_path / "node" / "result.json").exists()
