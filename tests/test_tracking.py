"""MLflow runs on a real SQLite store: made safely by many processes at once, closed whatever happens."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from pipeline import tracking
from pipeline.errors import ChorusError
from pipeline.tracking import PIPELINE_RUN, Tracker, artifact_root

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PIPELINE_RUN, raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", raising=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, shared by the tests that look at runs of their own alone."""
    folder = tmp_path_factory.mktemp("store")
    Tracker(folder)
    return folder


def start(script: str, root: Path) -> "subprocess.Popen[str]":
    """Start a Python process on this code in `root`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_many_processes_may_open_a_fresh_store_at_once(tmp_path: Path) -> None:
    # Forked after the imports, which would take most of the time, and before anything opens the store.
    script = """
import multiprocessing
from pathlib import Path
import mlflow.tracking, mlflow.store.tracking.sqlalchemy_store, torch
from pipeline.tracking import Tracker
fork = multiprocessing.get_context("fork")
barrier = fork.Barrier(12)
def work():
    barrier.wait()
    tracker = Tracker(Path.cwd())
    with tracker.child("member", "a", key="k") as run:
        run.params({"lr": 0.1, "nested": {"b": 2}})
        run.history([{"nimg": 10, "loss": 1.0}, {"nimg": 20, "loss": 0.5}])
    tracker.finish_pipeline()
processes = [fork.Process(target=work) for _ in range(12)]
for process in processes:
    process.start()
for process in processes:
    process.join()
assert [process.exitcode for process in processes] == [0] * 12
"""
    process = start(script, tmp_path)
    errors = process.communicate(timeout=200)[1]
    assert process.returncode == 0, errors
    tracker = Tracker(tmp_path)
    children = tracker.find(chorus_kind="member")
    parents = tracker.find(chorus_kind="pipeline")
    assert len(children) == len(parents) == 12
    assert {run.info.status for run in children + parents} == {"FINISHED"}
    assert children[0].data.params == {"lr": "0.1", "nested.b": "2"}
    history = tracker.client.get_metric_history(children[0].info.run_id, "loss")
    assert [(row.step, row.value) for row in history] == [(10, 1.0), (20, 0.5)]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "FINISHED"),
        (ValueError("no"), "FAILED"),
        (ValueError("postgresql://chorus:hunter2@host/mlflow refuses"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(143), "KILLED"),
        (SystemExit(0), "FINISHED"),
    ],
)
def test_children_end_as_their_work_ended(root: Path, error: BaseException | None, status: str) -> None:
    tracker = Tracker(root)
    with contextlib.suppress(BaseException), tracker.child("member", "a", key=f"ends {status}") as opened:
        if error is not None:
            raise error
    [run] = [run for run in tracker.find(chorus_key=f"ends {status}") if run.info.run_id == opened.id]
    assert run.info.status == status
    failed = status != "FINISHED"
    assert run.data.tags.get("chorus.error") == (repr(error).replace("chorus:hunter2", "***") if failed else None)
    assert run.info.end_time


def test_runs_of_killed_processes_are_reaped_and_living_ones_left(root: Path) -> None:
    script = """
import time
from pathlib import Path
from pipeline.tracking import Tracker
tracker = Tracker(Path.cwd())
with tracker.child("member", "dies", key="dies") as run:
    print(run.id, tracker.pipeline().id, flush=True)
    time.sleep(600)
"""
    process = start(script, root)
    assert process.stdout is not None
    child, parent = process.stdout.readline().split()
    tracker = Tracker(root)
    tracker.reap()

    def status(run: str) -> str:
        return str(tracker.client.get_run(run).info.status)

    assert (status(child), status(parent)) == ("RUNNING", "RUNNING")
    process.send_signal(signal.SIGKILL)
    # Not waited for yet: a zombie is dead too.
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    tracker.start_pipeline()
    assert (status(child), status(parent)) == ("KILLED", "KILLED")
    process.communicate()
    tracker.finish_pipeline()


def test_what_another_host_left_ends_with_its_pipeline_s_run(root: Path) -> None:
    tracker = Tracker(root)

    def status(run: str) -> str:
        return str(tracker.client.get_run(run).info.status)

    def opened(parent: str | None = None) -> str:
        tags = {tracking.PROCESS: "another-host:1:0.00"} | ({tracking.PARENT: parent} if parent else {})
        return str(tracker.client.create_run(tracker.experiment, tags=tags).info.run_id)

    parent = opened()
    child = opened(parent)
    tracker.client.set_tag(parent, "prefect.flow_run", "of that host")
    tracker.reap()
    assert (status(child), status(parent)) == ("RUNNING", "RUNNING")
    tracker.end_flow("of that host")
    tracker.reap()
    assert (status(child), status(parent)) == ("KILLED", "KILLED")


def test_a_process_that_ends_its_run_while_others_look_for_dead_ones_is_not_reaped(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker(root)
    run = tracker.client.create_run(tracker.experiment, tags={tracking.PROCESS: "ends:1:0.00"}).info.run_id

    def ends_and_exits(identity: str) -> bool:
        if identity != "ends:1:0.00":
            return True
        tracker.client.set_terminated(run, "FINISHED")
        return False

    monkeypatch.setattr(tracking, "is_alive", ends_and_exits)
    tracker.reap()
    assert tracker.client.get_run(run).info.status == "FINISHED"


def test_identity_tells_processes_apart() -> None:
    here = tracking.process_identity(psutil.Process())
    host, pid, created = here.rsplit(":", 2)
    assert tracking.is_alive(here)
    assert not tracking.is_alive(f"{host}:{pid}:{float(created) - 3600:.2f}")
    assert not tracking.is_alive(f"{host}:{2**22 + 1}:{created}")
    assert tracking.is_alive(f"elsewhere:{pid}:{created}")
    # The system computes a start from the time of its boot, which moves when the clock is set.
    assert tracking.is_alive(f"{host}:{pid}:{float(created) + 1:.2f}")


def test_stages_of_one_driver_share_a_parent_and_a_flow_names_its_own(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker(root)
    first = tracker.pipeline()
    assert tracker.pipeline().id == Tracker(root).pipeline().id == first.id
    tracker.finish_pipeline()
    assert tracker.client.get_run(first.id).info.status == "FINISHED"
    second = tracker.pipeline()
    assert second.id != first.id
    monkeypatch.setenv(PIPELINE_RUN, first.id)
    assert tracker.pipeline().id == first.id
    tracker.finish_pipeline()
    monkeypatch.delenv(PIPELINE_RUN)
    assert tracker.client.get_run(second.id).info.status == "RUNNING"
    tracker.finish_pipeline()


def test_finishing_without_a_parent_opens_none(root: Path) -> None:
    tracker = Tracker(root)
    before = len(tracker.find(chorus_kind="pipeline"))
    tracker.finish_pipeline()
    assert len(tracker.find(chorus_kind="pipeline")) == before


def test_driver_is_the_dvc_above(tmp_path: Path) -> None:
    (tmp_path / "dvc").write_text(
        "import subprocess, sys\n"
        "script = 'from pipeline.tracking import driver; print(driver().pid)'\n"
        "print(__import__('os').getpid(), flush=True)\n"
        "subprocess.run([sys.executable, '-c', script], check=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(tmp_path / "dvc"), "repro"]
    printed = subprocess.check_output(command, cwd=tmp_path, env=environment, text=True).split()
    assert printed[0] == printed[1]
    # A folder of that name among the arguments makes nobody the driver.
    (tmp_path / "other.py").write_text((tmp_path / "dvc").read_text())
    command = [sys.executable, str(tmp_path / "other.py"), "/home/someone/dvc"]
    printed = subprocess.check_output(command, cwd=tmp_path, env=environment, text=True).split()
    assert printed[0] != printed[1]


def test_a_deleted_experiment_is_restored(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    tracker.client.delete_experiment(tracker.experiment)
    again = Tracker(tmp_path)
    assert again.experiment == tracker.experiment
    with again.child("member", "a", key="k"):
        pass


def test_nothing_is_written_to_the_working_folder(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tracker = Tracker(root)
    with tracker.child("member", "elsewhere", key="e") as run:
        run.metrics({"a": 1.0}, step=3)
        run.file(Path(__file__), "code")
    tracker.finish_pipeline()
    assert list(tmp_path.iterdir()) == []
    assert list((root / "mlartifacts").rglob(Path(__file__).name))


@pytest.mark.parametrize(
    ("address", "folder"),
    [
        ("http://127.0.0.1:5000", None),
        ("https://mlflow.example", None),
        ("sqlite:////elsewhere/mlflow.db", "file:///project/mlartifacts"),
    ],
)
def test_a_server_decides_where_artefacts_go_and_a_file_keeps_them_near(address: str, folder: str | None) -> None:
    assert artifact_root(address, Path("/project")) == folder


@pytest.mark.parametrize(
    "address", ["postgresql+psycopg2://u@h/mlflow", "postgresql://h/mlflow", "mysql+pymysql://h/a"]
)
def test_a_shared_database_needs_a_shared_place_for_artefacts(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    with pytest.raises(ChorusError, match="set MLFLOW_DEFAULT_ARTIFACT_ROOT"):
        artifact_root(address, Path("/project"))
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "s3://bucket/mlflow")
    assert artifact_root(address, Path("/project")) == "s3://bucket/mlflow"


def test_a_database_without_its_driver_is_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+pg8000://chorus:hunter2@127.0.0.1:9/mlflow")
    with pytest.raises(ChorusError, match=r"needs a driver .*pg8000.*psycopg2://") as error:
        Tracker(tmp_path)
    assert "hunter2" not in str(error.value)


def test_two_machines_may_create_the_experiment_at_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
    monkeypatch.setattr(tracking, "EXPERIMENT", "of both")
    ask, others = MlflowClient.get_experiment_by_name, [tmp_path]

    def ask_while_another_creates(client: MlflowClient, name: str) -> Any:
        found = ask(client, name)
        if others:
            Tracker(others.pop())
        return found

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", ask_while_another_creates)
    assert Tracker(root).experiment == Tracker(tmp_path).experiment
