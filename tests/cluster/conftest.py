"""A Ray cluster of real nodes on this machine that share nothing but the loopback, and an S3 server for results."""

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.stub_checkout import dvc

HERE = "127.0.0.1"
NODE = "127.0.0.2"  # the loopback's too; Ray would replace the first by the address of the machine in the network
# A node that died is noticed within seconds; Ray's own setting takes up to a minute.
CONFIG = '{"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000, "health_check_failure_threshold": 3}'
AGENTS = ("dashboard-agent-grpc", "dashboard-agent-listen", "runtime-env-agent", "metrics-export")
UNHURRIED = {"RAY_agent_register_timeout_ms": "120000", "RAY_worker_niceness": "0"}
ACCESS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "tester", "AWS_DEFAULT_REGION": "us-east-1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HERE, 0))
        return int(probe.getsockname()[1])


def end(process: psutil.Process, patience: float = 0.0) -> None:
    """Kill a process and everything below it at once, as a machine takes its processes with it."""
    with suppress(psutil.NoSuchProcess):
        family = [process, *process.children(recursive=True)]
        if patience:
            process.terminate()
            psutil.wait_procs([process], timeout=patience)
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(family, timeout=10)


@contextmanager
def running(*command: str, log: Path, environment: dict[str, str] | None = None) -> Iterator[psutil.Process]:
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **(environment or {})},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield psutil.Process(process.pid)
    finally:
        with suppress(psutil.NoSuchProcess):
            end(psutil.Process(process.pid), patience=3)
        process.wait()


class Node:
    """A machine of the cluster: a raylet, with a folder of its own for clones and DVC's cache."""

    def __init__(self, process: psutil.Process, folder: Path) -> None:
        self.process, self.folder = process, folder

    def die(self) -> None:
        end(self.process)


class Nodes:
    """A cluster whose first node, which holds Ray's own services, computes too."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.address = f"{NODE}:{free_port()}"
        port = self.address.partition(":")[2]
        head = ("--head", f"--port={port}", f"--system-config={CONFIG}", "--include-dashboard=false")
        self.first = self._start("first", *head)

    def add(self, name: str) -> Node:
        return self._start(name, f"--address={self.address}")

    def _start(self, name: str, *options: str) -> Node:
        """Start a node of one core and wait until it is part of the cluster."""
        folder = self.folder / name
        folder.mkdir()
        log = folder / "log"
        limits = ("--num-cpus=1", "--num-gpus=0", f"--object-store-memory={80 * 2**20}")
        common = (f"--node-ip-address={NODE}", "--disable-usage-stats", "--block")
        # Where agents choose their ports, a raylet waits 15 seconds for each to say which, and then gives up.
        agents = [f"--{agent}-port={free_port()}" for agent in AGENTS]
        command = ("-m", "ray.scripts.scripts", "start", *options, *limits, *common, *agents)
        environment = {"CHORUS_NODE_FOLDER": str(folder), **ACCESS, **UNHURRIED}
        node = Node(self.stack.enter_context(running(*command, log=log, environment=environment)), folder)
        until(lambda: "Ray runtime started" in log.read_text(), f"Ray does not start: {log}", seconds=180)
        return node


def until(condition: Callable[[], bool], complaint: str, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.2)


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A cluster of one node of one core; tests add others.

    Ray listens on all interfaces whatever addresses its nodes have, so it asks for a token, which it reads when it is
    imported.
    """
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    pytest.importorskip("ray")
    with ExitStack() as stack:
        yield Nodes(tmp_path_factory.mktemp("nodes"), stack)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of moto's S3 server, with the bucket `chorus`."""
    pytest.importorskip("moto")
    pytest.importorskip("dvc_s3")
    address = f"http://{HERE}:{(port := free_port())}"
    log = tmp_path_factory.mktemp("s3") / "log"
    with running("-m", "moto.server", "-H", HERE, "-p", str(port), log=log):

        def answers() -> bool:
            with suppress(OSError):
                bucket = urllib.request.Request(f"{address}/chorus", method="PUT")
                return bool(urllib.request.urlopen(bucket).status == 200)
            return False

        until(answers, "moto does not start")
        yield address


@pytest.fixture
def exchange(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Give a checkout a remote of its own on the S3 server; the settings are not committed."""
    for name, value in ACCESS.items():
        monkeypatch.setenv(name, value)

    def exchange(root: Path) -> None:
        dvc(root, "remote", "add", "--local", "--default", "s3", f"s3://chorus/{tmp_path.name}")
        dvc(root, "remote", "modify", "--local", "s3", "endpointurl", s3)

    return exchange
