"""A graph on a cluster: the same lock entries as on one machine, whatever becomes of a node."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from flows.cluster.execution import on_cluster
from flows.devices import Pool
from flows.execution import RAN, Execution, Outcome, stage_environment
from flows.graph import read_graph
from flows.process import Processes
from pipeline.project import Project
from tests.cluster.conftest import Nodes
from tests.flows.conftest import MLFLOW, dvc

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
Run = Callable[..., dict[str, Outcome]]


def drive(execution: Execution, stages: Sequence[str]) -> dict[str, Outcome]:
    """Run stages as the flow does, each after those it reads from, without Prefect."""
    begun: dict[str, Future[Outcome]] = {}

    def run(stage: str) -> Outcome:
        upstream = [begun[name].result() for name in execution.graph.before(stage, stages)]
        return execution.run(stage, upstream, lambda line: print(f"{stage} | {line}", flush=True))

    with ThreadPoolExecutor(len(stages)) as threads:
        for stage in stages:
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


def lock(root: Path) -> object:
    return yaml.safe_load((root / "dvc.lock").read_text())


def test_lock_entries_equal_those_of_one_machine(
    fresh: Path, done: Path, nodes: Nodes, exchange: Callable[[Path], None], run: Run
) -> None:
    second = nodes.add("second")
    exchange(fresh)
    outcomes = run(fresh)
    assert {name: outcome.what for name, outcome in outcomes.items()} == dict.fromkeys(lock(done)["stages"], RAN)
    assert lock(fresh) == lock(done)
    assert dvc(fresh, "status", "--json").strip() == "{}"
    for name in ("raw.txt", "model-x.txt", "registered.txt"):
        assert (fresh / name).read_bytes() == (done / name).read_bytes()
    assert not (fresh / "log").exists()  # nothing was computed here
    assert list(second.folder.glob("*/clones/*/dvc.yaml"))
    second.die()
