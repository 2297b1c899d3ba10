"""A tiny checkout with git, DVC and stages that copy text, and one Prefect server for the whole session.

A plugin and no conftest.py: folders that share a session's fixture by importing it would each get one of their own, and
Prefect sends a process's events to the first server that it has met.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.devices.slots import Pool
from flows.planning.graph import read_graph
from flows.stages.command import stage_environment
from flows.stages.execution import Execution
from flows.stages.outcomes import Outcome
from flows.stages.process import Processes

PARAMS = """\
data: {source: digits, watch: source.txt, size: 8}
families:
  x: {architecture: mlp, kimg: 1, lr: 0.1}
  y: {architecture: mlp, kimg: 1}
"""
DVC = """\
stages:
  ingest:
    cmd: python work.py ingest source.txt raw.txt
    deps: [source.txt]
    outs: [raw.txt]
  train:
    foreach: ${families}
    do:
      cmd: python work.py ${key} raw.txt model-${key}.txt
      deps: [raw.txt]
      params: ["families.${key}"]
      outs: ["model-${key}.txt"]
  register:
    cmd: python work.py register model-x.txt model-y.txt registered.txt
    deps: [model-x.txt, model-y.txt]
    outs: [registered.txt]
"""
# What a stage does besides copying is asked for by files, which DVC does not watch.
WORK = """\
import pathlib, signal, sys, time
name, *inputs, output = sys.argv[1:]
log = pathlib.Path("log"); log.mkdir(exist_ok=True)
with (log / "order").open("a") as order: order.write(f"{name} begins {time.monotonic()}\\n")
print("working on", name)
if (log / f"{name}.wrong").exists():
    print("chorus: wrong input", file=sys.stderr)
    sys.exit(2)
if (log / f"{name}.sleep").exists():
    def checkpoint(*_):
        (log / f"{name}.checkpoint").touch()
        sys.exit(143)
    signal.signal(signal.SIGTERM, checkpoint)
    (log / f"{name}.pid").write_text(str(__import__("os").getpid()))
    time.sleep(60)
time.sleep(0.2)
pathlib.Path(output).write_text(name + "".join(pathlib.Path(i).read_text() for i in inputs))
with (log / "order").open("a") as order: order.write(f"{name} ends {time.monotonic()}\\n")
"""
# Stands where the project has its own package: the flow only knows the command.
VERIFY = """\
import pathlib, sys
if "--on-cue" in sys.argv and not sys.stdin.readline(): sys.exit()
print("asked to", *sys.argv[1:])
sys.exit(pathlib.Path("log/verify.wrong").exists())
"""
MLFLOW = "http://mlflow.example:5000"  # no stage here writes to it


def call(root: Path, *command: str) -> str:
    """Run a command in a checkout with this environment's `python` and `dvc`, and return its output."""
    environment = stage_environment(threads=1)
    return subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True, text=True).stdout


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def dvc(root: Path, *arguments: str) -> str:
    return call(root, sys.executable, "-m", "dvc", *arguments)


@pytest.fixture(scope="session")
def fresh_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fresh") / "project"
    (root / "pipeline").mkdir(parents=True)
    files = {
        "params.yaml": PARAMS,
        "dvc.yaml": DVC,
        "work.py": WORK,
        "pipeline/__init__.py": "",
        "pipeline/__main__.py": VERIFY,
        "source.txt": "images",
        ".gitignore": "/log\n/.chorus\n/raw.txt\n/model-*\n/registered.txt\n/report\n/registration.json\n",
    }
    for name, text in files.items():
        (root / name).write_text(text)
    call(root, "git", "init", "-q")
    call(root, "git", "config", "user.name", "Tester")
    call(root, "git", "config", "user.email", "tester@example.org")
    dvc(root, "init", "-q")
    call(root, "git", "add", "-A")
    call(root, "git", "commit", "-qm", "Start")
    return root


@pytest.fixture(scope="session")
def done_template(fresh_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = shutil.copytree(fresh_template, tmp_path_factory.mktemp("done") / "project")
    dvc(root, "repro", "-q")
    return root


@pytest.fixture
def fresh(fresh_template: Path, tmp_path: Path) -> Path:
    """A checkout in which nothing has run."""
    return shutil.copytree(fresh_template, tmp_path / "fresh")


@pytest.fixture
def done(done_template: Path, tmp_path: Path) -> Path:
    """A checkout in which a serial `dvc repro` has run everything."""
    root = shutil.copytree(done_template, tmp_path / "done")
    shutil.rmtree(root / "log")
    return root


@pytest.fixture
def here(done: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout in which everything is up to date and committed, as the working folder."""
    call(done, "git", "add", "-f", "dvc.lock")
    call(done, "git", "commit", "-qm", "Lock")
    monkeypatch.chdir(done)
    return done


@pytest.fixture
def with_remote(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose results are committed, with a folder as its DVC remote."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", MLFLOW)
    config = f"[core]\n    remote = there\n['remote \"there\"']\n    url = {tmp_path / 'remote'}\n"
    (done / ".dvc" / "config.local").write_text(config)
    call(done, "git", "add", "-A", "-f", "dvc.lock")
    call(done, "git", "commit", "-qm", "Results")
    return done


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """The address of a Prefect server that lives as long as the session."""
    os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield PREFECT_API_URL.value()


@pytest.fixture(scope="session")
def tracking_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def tracked(tracking_store: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """One MLflow store for all tests: making a new one takes seconds."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_store)
    return tracking_store


@pytest.fixture
def run(prefect_server: str) -> Callable[..., dict[str, Outcome]]:
    """Run a checkout's graph as a Prefect flow without MLflow and the registry."""
    from prefect import flow

    from flows.run import run_graph

    def run(
        root: Path,
        only: tuple[str, ...] = (),
        slots: int = 2,
        urgency: Mapping[str, float] | None = None,
        **options: Any,
    ) -> dict[str, Outcome]:
        graph = read_graph(root)
        pool = Pool([{"SLOT": str(number)} for number in range(slots)], urgency)
        execution = Execution(root, graph, pool, Processes(), stage_environment(1), **options)
        outcomes = flow(run_graph, name="graph")(execution, graph.select(only))
        return {outcome.stage: outcome for outcome in outcomes}

    return run


def order(root: Path) -> list[tuple[str, str]]:
    """Return what began and ended in a checkout's stages, in the order of time."""
    path = root / "log" / "order"
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [(name, what) for name, what, at in sorted(lines, key=lambda line: float(line[2]))]


def gone(pid: int) -> bool:
    """Whether a process has ended, or does within a moment: its files are closed a little before."""
    try:
        psutil.Process(pid).wait(timeout=5)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        # Where nobody collects orphans they stay as zombies.
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def environment_for(server: str, store: str) -> dict[str, str]:
    """Return the environment of a flow in a process of its own that reports to the session's servers."""
    return {**os.environ, "PREFECT_API_URL": server, "MLFLOW_TRACKING_URI": store, "OMP_NUM_THREADS": "1"}
