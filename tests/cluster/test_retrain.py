"""The small real pipeline through `python -m flows.retrain --runner ray`, against a serial `dvc repro`."""

import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cluster.conftest import HERE, Nodes, free_port, running, until
from tests.endtoend.checkout import Checkout, reproducible

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SMALLER = {
    "families": {
        "mlp": {"architecture": "mlp", "kimg": 2, "snapshots": 1, "lr": 0.0005, "width": 16},
        "vae": {"architecture": "vae", "kimg": 2, "lr": 0.001, "latent": 8, "width": 8},
    },
}


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[str]:
    """The address of an MLflow server, which nodes reach as they would another machine's."""
    address = f"http://{HERE}:{(port := free_port())}"
    store = f"sqlite:///{tmp_path}/mlflow.db"
    kept = ("--backend-store-uri", store, "--artifacts-destination", str(tmp_path / "artifacts"), "--workers", "1")
    with running("-m", "mlflow", "server", "--host", HERE, "--port", str(port), *kept, log=tmp_path / "log"):

        def answers() -> bool:
            with suppress(OSError):
                return bool(urllib.request.urlopen(f"{address}/health").status == 200)
            return False

        until(answers, "MLflow does not start", seconds=180)
        yield address


def test_the_command_leaves_the_lock_entries_of_a_serial_run(
    tmp_path: Path, nodes: Nodes, exchange: Callable[[Path], None], mlflow_server: str
) -> None:
    second = nodes.add("worker")
    serial, cluster = Checkout(tmp_path / "serial", **SMALLER), Checkout(tmp_path / "cluster", **SMALLER)
    exchange(cluster.folder)
    command = [sys.executable, "-m", "flows.retrain", "--runner", "ray", "--ray-address", nodes.address]
    print(cluster.run("env", f"MLFLOW_TRACKING_URI={mlflow_server}", *command))
    serial.run("dvc", "repro")
    assert reproducible(cluster.lock()) == reproducible(serial.lock())
    assert cluster.run("dvc", "status", "--json").strip() == "{}"
    assert list(second.folder.glob("*/clones/*/dvc.yaml"))
    second.die()
