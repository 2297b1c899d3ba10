"""A Prefect and an MLflow server of our own on the loopback, to be killed and started again on the same port."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.chaos.processes import until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Service:
    """A server in a process group of its own."""

    def __init__(self, command: Sequence[str], health: str, log: Path, environment: Mapping[str, str]) -> None:
        self.command, self.health, self.log = command, health, log
        self.environment = {**os.environ, **environment}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        if not until(self.answers, 600):
            raise RuntimeError(f"{self.command[2]} does not start: {self.log.read_text()[-2000:]}")

    def answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.command[2]} ended: {self.log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(self.health, timeout=5) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        """End the whole group by SIGKILL; nothing happens where it does not run."""
        self.end(signal.SIGKILL)

    def end(self, number: signal.Signals) -> None:
        """End it by a signal, and what is left of its group after a while by SIGKILL."""
        if self.process is not None:
            os.killpg(self.process.pid, number)
            until(lambda: self.process is None or self.process.poll() is not None, 20)
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


class Prefect(Service):
    """`prefect server`, with a new database in `folder`."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/api"
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        environment = {"PREFECT_HOME": str(folder), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        super().__init__([*command, "--no-ui"], f"{self.url}/health", folder / "server.log", environment)


class MLflow(Service):
    """`mlflow server` on the store of a checkout, which hands artefacts on to `mlartifacts` beside it."""

    def __init__(self, root: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
        ]
        command += ["--backend-store-uri", f"sqlite:///{root / 'mlflow.db'}"]
        command += ["--artifacts-destination", (root / "mlartifacts").as_uri()]
        environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        super().__init__(command, f"{self.url}/health", root.parent / "mlflow.log", environment)
