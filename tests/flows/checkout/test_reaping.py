"""What a killed flow leaves behind is gone when the next one begins; what lives is left alone."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from flows.checkout import reaping
from flows.retrain import main
from pipeline.tracking import process_identity
from tests.flows.test_retrain import pipeline_runs
from tests.stub_checkout import call, dvc, edit, environment_for, gone

SLEEPER = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); print(1, flush=True)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)"

NOBODY: dict[str, dict[str, str]] = {"write": {}, "read": {}}  # what DVC locks for no one


def dead() -> str:
    """Return the identity of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    identity = process_identity(psutil.Process(process.pid))
    process.communicate()
    return identity


def started(code: str, root: Path, flow: str) -> "subprocess.Popen[bytes]":
    """Start a process as a flow with this identity would, and wait until it runs."""
    environment = {**os.environ, reaping.MARK: f"{flow} {root.resolve()}"}
    command = [sys.executable, "-c", f"{code}; time.sleep(60)"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_orphans_of_dead_flows_are_ended_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    flow, alive = dead(), process_identity(psutil.Process())
    orphan, deaf = started(SLEEPER, tmp_path, flow), started(DEAF, tmp_path, flow)
    child, elsewhere = started(SLEEPER, tmp_path, alive), started(SLEEPER, tmp_path / "other", flow)
    experiment = started(SLEEPER, tmp_path / reaping.EXPERIMENTS / "mlp-x1", flow)
    said: list[str] = []
    try:
        reaping.end_orphans(tmp_path, said.append, grace=1)
        assert gone(orphan.pid)
        assert gone(deaf.pid)
        assert gone(experiment.pid)
        assert child.poll() is None
        assert elsewhere.poll() is None
        assert "3 processes" in said[0]
        reaping.end_orphans(tmp_path, pytest.fail, grace=1)
    finally:
        for process in (orphan, deaf, child, elsewhere, experiment):
            process.kill()
            process.communicate()


def lock_paths(root: Path, pid: int) -> Path:
    path = root / ".dvc" / "tmp" / "rwlock"
    info = {"pid": pid, "cmd": "dvc repro"}
    path.write_text(json.dumps({"write": {str(root / "raw.txt"): info}, "read": {str(root / "x"): [info]}}))
    return path


def test_an_orphan_that_nobody_collects_is_not_waited_for() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    process = psutil.Process(ended.pid)
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert process.status() == psutil.STATUS_ZOMBIE
    assert reaping.still_there([process], seconds=0) == []
    ended.wait()


def test_path_locks_of_the_dead_are_struck_off(done: Path) -> None:
    (pid,) = map(int, dead().split(":")[1:2])
    path = lock_paths(done, pid)
    reaping.mend_path_locks(done, lambda _: None)
    assert json.loads(path.read_text()) == NOBODY
    # The id went to a process that began after the list was written, as after a reboot.
    path = lock_paths(done, os.getpid())
    os.utime(path, (1, 1))
    reaping.mend_path_locks(done, lambda _: None)
    assert json.loads(path.read_text()) == NOBODY
    path.write_text('{"write": {"')
    reaping.mend_path_locks(done, lambda _: None)
    assert not path.exists()
    assert dvc(done, "status", "--json").strip() == "{}"


def test_the_empty_list_that_dvc_leaves_is_not_mended(done: Path) -> None:
    path = lock_paths(done, os.getpid())
    path.write_text('{"write": {}, "read": {"raw.txt": []}}')
    reaping.mend_path_locks(done, pytest.fail)


def test_path_locks_of_the_living_stay(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(done)
    path = lock_paths(done, os.getpid())
    before = path.read_text()
    reaping.mend_path_locks(done, pytest.fail)
    assert path.read_text() == before


@pytest.mark.parametrize("kept", ["", r".*md5: \w\w\w", r".*hash: md5\n"])
def test_a_lock_file_that_was_cut_short_costs_no_computation(done: Path, kept: str) -> None:
    path = done / "dvc.lock"
    text = path.read_text()
    beginning = re.match(kept, text, re.DOTALL)
    assert beginning
    path.write_text(beginning[0])
    reaping.set_aside_damaged_lock(done, lambda _: None)
    dvc(done, "repro", "-q")
    assert path.read_text() == text
    assert not (done / "log").exists()


def test_a_sound_lock_file_and_one_in_conflict_are_left_alone(done: Path) -> None:
    path = done / "dvc.lock"
    reaping.set_aside_damaged_lock(done, pytest.fail)
    path.write_text("<<<<<<< HEAD\n" + path.read_text())
    reaping.set_aside_damaged_lock(done, pytest.fail)
    assert path.exists()


def test_half_written_files_go_with_their_process(tmp_path: Path) -> None:
    folder = tmp_path / ".checkpoints" / "x"
    folder.mkdir(parents=True)
    (pid,) = dead().split(":")[1:2]
    left = [folder / f".state.{os.getpid()}-0a1b2c3d.tmp", folder / "state.tmp"]
    for path in [*left, folder / f".state.{pid}-0a1b2c3d.tmp"]:
        path.touch()
    reaping.remove_half_written(tmp_path, lambda _: None)
    assert sorted(folder.iterdir()) == sorted(left)


def test_notes_of_flows(tmp_path: Path) -> None:
    mine, other = str(uuid4()), str(uuid4())
    reaping.note_flow(tmp_path, mine)
    reaping.note_flow(tmp_path, other)
    path = tmp_path / reaping.FLOWS / f"{other}.json"
    path.write_text(json.dumps({"process": dead()}))
    (tmp_path / reaping.FLOWS / "half.json").write_text("{")
    inside = tmp_path / reaping.EXPERIMENTS / "mlp-x1"
    with reaping.noted(inside, "of an experiment"):
        assert reaping.dead_flows(tmp_path) == [path]
        (note,) = (inside / reaping.FLOWS).iterdir()
        note.write_text(json.dumps({"process": f"another-host:{os.getpid()}:0.0"}))
        assert {*reaping.dead_flows(tmp_path)} == {path, note}
    reaping.forget_flow(tmp_path, other)
    assert reaping.dead_flows(tmp_path) == []
    assert [path.stem for path in (tmp_path / reaping.FLOWS).iterdir()] == [mine]


def test_locks_of_killed_git_commands_are_removed(fresh: Path) -> None:
    call(fresh, "git", "worktree", "add", "--quiet", "--detach", str(fresh / reaping.EXPERIMENTS / "mlp-x1"))
    locks = [fresh / ".git" / "index.lock", fresh / ".git" / "worktrees" / "mlp-x1" / "index.lock"]
    for path in locks:
        path.touch()
    living = subprocess.Popen(["git", "cat-file", "--batch"], cwd=fresh, stdin=subprocess.PIPE)
    reaping.remove_git_locks(fresh, pytest.fail)
    living.communicate()
    reaping.remove_git_locks(fresh, lambda _: None)
    assert not any(path.exists() for path in locks)


@pytest.mark.slow
def test_after_a_killed_flow_the_next_one_cleans_up_and_goes_on(
    here: Path,
    prefect_server: str,
    tracked: str,
) -> None:
    from prefect.client.orchestration import get_client

    edit(here / "params.yaml", "lr: 0.1", "lr: 0.6")
    log = here / "log"
    log.mkdir(exist_ok=True)
    (log / "x.sleep").touch()
    command = [sys.executable, "-P", "-m", "flows.retrain"]
    environment = environment_for(prefect_server, tracked)
    flow = subprocess.Popen(command, cwd=here, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while not (log / "x.pid").exists() or not (log / "x.pid").read_text():
        assert flow.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    flow.kill()
    flow.wait()
    stage = int((log / "x.pid").read_text())
    assert psutil.pid_exists(stage)
    (log / "x.sleep").unlink()
    run = pipeline_runs(tracked)[0]
    assert run.info.status == "RUNNING"

    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert gone(stage)
    assert (log / "x.checkpoint").exists()
    assert "a flow was killed and left" in done.stderr
    assert [run.info.status for run in pipeline_runs(tracked)[:2]] == ["FINISHED", "KILLED"]
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(run.data.tags["prefect.flow_run"]).state.name == "Crashed"
    assert not list((here / reaping.FLOWS).iterdir())


@pytest.mark.slow
def test_a_flow_that_broke_off_is_looked_after_by_the_next_one(
    here: Path,
    prefect_server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    work, text = here / "work.py", (here / "work.py").read_text()
    work.write_text("import pathlib; pathlib.Path('mlflow.db').write_bytes(b'cut short')\n" + text)
    edit(here / "params.yaml", "lr: 0.1", "lr: 0.7")
    assert main([]) == 1
    # MLflow could not be told of the end.
    assert len(list((here / reaping.FLOWS).iterdir())) == 1
