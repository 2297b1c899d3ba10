"""A graph on a cluster: the same lock entries as on one machine, whatever becomes of a node."""

import io
import tarfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from flows.cluster.connection import LOST, connected
from flows.cluster.execution import on_cluster
from flows.cluster.order import Order
from flows.devices.slots import Pool
from flows.planning.graph import read_graph
from flows.stages.attempts import Patience, what_can_pass
from flows.stages.command import stage_environment
from flows.stages.execution import Execution
from flows.stages.outcomes import RAN, STOPPED, Outcome
from flows.stages.process import Processes
from pipeline.exits import CAN_PASS
from pipeline.params import Compute
from pipeline.project import Project
from tests.cluster.conftest import Nodes, until
from tests.stub_checkout import MLFLOW, call, dvc, gone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(480)]
HOLD = """\
import os, pathlib, sys, time
held = pathlib.Path(os.environ["CHORUS_TEST_HELD"])
if (held / sys.argv[1]).exists():
    (held / f"{sys.argv[1]}.pid").write_text(str(os.getpid()))
while (held / sys.argv[1]).exists():
    time.sleep(0.1)
"""
Run = Callable[..., dict[str, Outcome]]


def drive(execution: Execution, stages: Sequence[str]) -> dict[str, Outcome]:
    """Run stages as the flow does, each after those it reads from, without Prefect."""
    begun: dict[str, Future[Outcome]] = {}

    def run(stage: str) -> Outcome:
        upstream = [begun[name].result() for name in execution.graph.before(stage, stages)]
        return execution.run(stage, upstream, lambda line: print(f"{stage} | {line}", flush=True))

    with ThreadPoolExecutor(len(stages)) as threads:
        for stage in stages:  # in topological order
            begun[stage] = threads.submit(run, stage)
    return {stage: future.result() for stage, future in begun.items()}


@pytest.fixture
def run(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a checkout's graph on the cluster, without Prefect, MLflow and the registry."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", MLFLOW)

    def run(root: Path, only: tuple[str, ...] = (), **options: object) -> dict[str, Outcome]:
        graph = read_graph(root)
        selected = graph.select(only)
        with on_cluster(nodes.address, Project.load(root), Pool([{}])) as execution_of:
            execution = execution_of(
                graph=graph,
                pool=Pool([{}] * len(selected)),
                processes=options.pop("processes", None) or Processes(),
                environment=stage_environment(1),
                **options,
            )
            return drive(execution, selected)

    return run


def entries(root: Path) -> dict[str, Any]:
    """Return the entries of a checkout's `dvc.lock` by stage."""
    return dict(yaml.safe_load((root / "dvc.lock").read_text())["stages"])


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files named after the stages that are to wait; those that do write their process ids there."""
    folder = tmp_path / "held"
    folder.mkdir()
    monkeypatch.setenv("CHORUS_TEST_HELD", str(folder))
    return folder


def hold(root: Path, held: Path, *names: str) -> None:
    """Make stages of a checkout wait once they are under way."""
    (root / "work.py").write_text(HOLD + (root / "work.py").read_text())
    call(root, "git", "commit", "-qam", "Wait where told to")
    for name in names:
        (held / name).touch()


def worker(held: Path, name: str) -> psutil.Process:
    """Return the process of a stage that waits, once it does."""
    path = held / f"{name}.pid"
    until(lambda: path.exists() and bool(path.read_text()), f"{name} does not begin", seconds=240)
    return psutil.Process(int(path.read_text()))


def test_lock_entries_equal_those_of_one_machine(
    fresh: Path, done: Path, nodes: Nodes, exchange: Callable[[Path], None], run: Run
) -> None:
    """Twice: the second time the nodes' clones hold what the first left there."""
    second = nodes.add("second")
    exchange(fresh)
    outcomes = run(fresh)
    assert {name: outcome.what for name, outcome in outcomes.items()} == dict.fromkeys(entries(done), RAN)
    assert entries(fresh) == entries(done)
    for name in ("raw.txt", "model-x.txt", "registered.txt"):
        assert (fresh / name).read_bytes() == (done / name).read_bytes()
    assert not (fresh / "log").exists()  # nothing was computed here
    for root in (fresh, done):
        (root / "source.txt").write_text("other images")
        call(root, "git", "commit", "-qam", "Other images")
    dvc(done, "repro", "-q")
    outcomes = run(fresh)
    assert {name: outcome.what for name, outcome in outcomes.items()} == dict.fromkeys(entries(done), RAN)
    assert entries(fresh) == entries(done)
    assert dvc(fresh, "status", "--json").strip() == "{}"
    clones = [list(node.folder.glob("*/clones/*/dvc.yaml")) for node in (nodes.first, second)]
    assert all(clones)
    second.die()


def test_a_node_that_dies_in_the_middle(
    fresh: Path, done: Path, nodes: Nodes, exchange: Callable[[Path], None], run: Run, held: Path
) -> None:
    doomed = nodes.add("doomed")
    exchange(fresh)
    hold(fresh, held, "x", "y")
    with ThreadPoolExecutor(1) as thread:
        outcomes = thread.submit(run, fresh, patience=Patience(2, 0.5))
        places = {name: Path(worker(held, name).cwd()) for name in ("x", "y")}
        (lost,) = (name for name, place in places.items() if place.is_relative_to(doomed.folder))
        print(f"{lost} computes in {places[lost]}: that node dies now", flush=True)
        doomed.die()
        for name in ("x", "y"):
            (held / name).unlink()
        ended = outcomes.result()
    assert ended[f"train@{lost}"].what == RAN
    # Two attempts, or three: until it has noticed the death, Ray may give the second to the dead node.
    assert {name for name, outcome in ended.items() if outcome.attempts > 1} == {f"train@{lost}"}
    assert entries(fresh) == entries(done)
    assert dvc(fresh, "status", "--json").strip() == "{}"


def test_stopping_ends_stages_on_nodes(
    fresh: Path, nodes: Nodes, exchange: Callable[[Path], None], run: Run, held: Path
) -> None:
    exchange(fresh)
    hold(fresh, held, "ingest")
    processes = Processes()
    with ThreadPoolExecutor(1) as thread:
        outcomes = thread.submit(run, fresh, processes=processes)
        stage = worker(held, "ingest").pid
        processes.stop()
        ended = outcomes.result()
    assert ended["ingest"].what == STOPPED
    assert not any(outcome.succeeded for outcome in ended.values())
    assert gone(stage)
    assert not (fresh / "dvc.lock").exists()


def packed(program: str) -> bytes:
    """Return what nodes get, with another program than ours."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, text in {"__init__": "", "cluster/__init__": "", "cluster/node": program}.items():
            entry = tarfile.TarInfo(f"program/flows/{name}.py")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return archive.getvalue()


@pytest.mark.parametrize(
    ("cargo", "status", "message"),
    [
        (b"no archive", LOST, "ReadError"),
        (packed("def main():\n    return 0\n"), CAN_PASS, "FileNotFoundError"),
    ],
)
def test_what_ray_cannot_do_is_a_failed_attempt_that_can_pass(
    nodes: Nodes, cargo: bytes, status: int, message: str
) -> None:
    """In the first case the actor does not come to life, in the second its answer is an error."""
    order = Order("ingest", [], "", "", ("there", {}), 1, {})
    said: list[str] = []
    with connected(nodes.address, Compute(), 1, cargo) as cluster:
        assert cluster.run(order, Processes(), said.append) == (status, None)
    assert message in "\n".join(said)
    assert what_can_pass(status, said)
