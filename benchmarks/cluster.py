"""What one stage costs beside its own work when it runs on a node of a cluster, and the sizes at which that matters.

    python benchmarks/cluster.py --entries 0 100 1000

One stub stage is computed by the node's own program in a folder of its own and recorded by the head, without Ray,
through an S3 server on the loopback (moto), which counts the requests. Seconds are of the processor and of the clock;
the former hardly move with other work on the machine. A network's latency comes on top, once a request. Before each row
the run cache is filled with entries of other stages, as years of nights would fill it.
"""

import argparse
import json
import os
import platform
import re
import resource
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from flows.cluster.handover import Handover, prepare
from flows.cluster.lock import read_lock, record_entry
from flows.cluster.node import FOLDER
from flows.cluster.order import Order
from flows.cluster.station import START
from flows.cluster.surroundings import surroundings

FILES = {
    "params.yaml": "data: {source: digits, watch: source.txt, size: 8}\nfamilies: {a: {architecture: mlp, kimg: 1}}\n",
    "dvc.yaml": """\
stages:
  work:
    matrix: {number: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}
    cmd: python work.py ${item.number}
    deps: [work.py]
    outs: ["made-${item.number}.txt"]
""",
    "work.py": "import pathlib, sys\npathlib.Path(f'made-{sys.argv[1]}.txt').write_text(sys.argv[1])\n",
    "source.txt": "",
    ".gitignore": "/made-*\n/.chorus\n",
}
ACCESS = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}
REQUEST = re.compile(r'"(GET|PUT|HEAD|POST|DELETE) ')


@dataclass(frozen=True)
class Cost:
    """What a step took: seconds of the processor, seconds of the clock, requests to the remote."""

    processor: float
    clock: float
    requests: int

    def __str__(self) -> str:
        return f"{self.processor:6.2f} {self.clock:7.2f} {self.requests:6d}"


class Remote:
    """An S3 server on the loopback that counts its requests."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address, self.log = f"http://127.0.0.1:{port}", folder / "requests"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with self.log.open("w") as file:
            self.server = subprocess.Popen(command, stdout=file, stderr=file)
        for _ in range(600):
            with suppress(OSError):
                self.put("", b"")
                return
            time.sleep(0.1)
        raise SystemExit("moto does not start")

    def put(self, name: str, content: bytes) -> None:
        request = urllib.request.Request(f"{self.address}/chorus{name}", data=content, method="PUT")
        urllib.request.urlopen(request).close()

    @property
    def requests(self) -> int:
        return len(REQUEST.findall(self.log.read_text()))


def measure(remote: Remote, step: Callable[[], object]) -> Cost:
    before, counted, began = _processor(), remote.requests, time.perf_counter()
    step()
    return Cost(_processor() - before, time.perf_counter() - began, remote.requests - counted)


def _processor() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def make_project(root: Path, remote: Remote) -> None:
    root.mkdir()
    for name, text in FILES.items():
        (root / name).write_text(text)
    dvc = [sys.executable, "-m", "dvc"]
    for command in (
        ["git", "init", "-q"],
        [*dvc, "init", "-q"],
        [*dvc, "remote", "add", "--default", "s3", "s3://chorus/remote"],
        [*dvc, "remote", "modify", "s3", "endpointurl", remote.address],
        ["git", "-c", "user.name=any", "-c", "user.email=any@example.org", "add", "-A"],
        ["git", "-c", "user.name=any", "-c", "user.email=any@example.org", "commit", "-qm", "Start"],
    ):
        subprocess.run(command, cwd=root, check=True, capture_output=True)


def fill_run_cache(remote: Remote, first: int, last: int) -> None:
    """Put entries of other stages into the remote's run cache, each as large as one of ours."""
    for number in range(first, last):
        key, value = f"{number:064x}", f"{number + 10**9:064x}"
        remote.put(f"/remote/runs/{key[:2]}/{key}/{value}", b"cmd: python -m pipeline train\n" + b"#" * 1500)


def compute(root: Path, handover: Handover, stage: str, folder: Path) -> None:
    """Do what a node does for one stage."""
    with tarfile.open(fileobj=BytesIO(handover.cargo)) as cargo:
        cargo.extractall(folder / "cargo", filter="data")
    order = Order(stage, (), handover.commit, read_lock(root), handover.remote, 1, surroundings())
    program = [str(folder / "cargo" / name) for name in ("program", "repository", "result.json")]
    node = subprocess.Popen(
        [sys.executable, "-c", START, *program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, FOLDER: str(folder)},
    )
    assert node.stdin is not None
    assert node.stdout is not None
    node.stdin.write(order.dump() + "\n")
    node.stdin.flush()
    said = node.stdout.read()
    if node.wait():
        raise SystemExit(said)


def record(root: Path, stage: str, folder: Path) -> None:
    """Do what the head does with a node's result."""
    record_entry(root, stage, json.loads((folder / "cargo" / "result.json").read_text()))
    subprocess.run(
        [sys.executable, "-m", "dvc", "--wait-for-lock", "pull", "-q", "--force", stage], cwd=root, check=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, nargs="+", default=[0, 100, 1000], help="sizes of the run cache")
    sizes = sorted(parser.parse_args().entries)
    os.environ.update(ACCESS, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        remote = Remote(folder)
        try:
            root = folder / "head"
            make_project(root, remote)
            handover = prepare(root)
            megabytes = len(handover.cargo) / 1e6
            print(f"{platform.machine()}, {os.cpu_count()} cores; what goes to each node: {megabytes:.1f} MB")
            print(f"{'':>12}  {'on the node':^21}   {'on the head':^21}")
            columns = f"{'CPU s':>6} {'clock s':>7} {'requ.':>6}"
            print(f"{'run cache':>12}  {columns}   {columns}")
            compute(root, handover, "work@0", folder)  # the clone is made once on each node
            filled = 0
            for place, size in enumerate(sizes, start=1):
                fill_run_cache(remote, filled, size)
                filled, stage = size, f"work@{place}"
                node = measure(remote, lambda stage=stage: compute(root, handover, stage, folder))
                head = measure(remote, lambda stage=stage: record(root, stage, folder))
                print(f"{size:>12}  {node}   {head}", flush=True)
        finally:
            remote.server.terminate()
            remote.server.wait()


if __name__ == "__main__":
    main()
