"""What orchestration costs beside the stages themselves, and what running them side by side gains.

    python benchmarks/orchestration.py
    python benchmarks/orchestration.py --up-to-date /path/to/checkout

Stages are stand-ins that sleep, or compute in one thread, in the shape of the project's own graph; git, DVC, MLflow
and Prefect are real. A checkout of the real pipeline in which all is up to date can be given for the run with nothing
to do: then its last step, the check of the registry, is the real one too. What Prefect takes to start is that of a flow
with nothing in it, at the same server. Databases that Prefect and MLflow make once in a home are there before the clock
runs. Takes about twelve minutes, and tells little while the machine does other things.
"""

import argparse
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows.devices.slots import usable_cores
from flows.stages.command import stage_environment

ROOT = Path(__file__).parents[1]
PYTHON = [sys.executable, "-P"]  # the stand-in for our package lies in the working folder
FLOW = [*PYTHON, "-m", "flows.retrain"]
DVC = [sys.executable, "-m", "dvc"]
MINUTE = 60.0
STAGE = """\
import pathlib, sys, time
name, kind, amount, output, *inputs = sys.argv[1:]
def note(what):
    with open("log", "a") as log: log.write(f"{name} {what} {time.monotonic()}\\n")
note("begins")
if kind == "sleep": time.sleep(float(amount))
else: sum(i * i for i in range(int(amount)))
pathlib.Path(output).write_text(name)
note("ends")
"""
CHECK = "print('the registry holds it')"
EMPTY = "from prefect import flow; flow(lambda: None, name='empty')()"
PARAMS = "data: {{source: digits, watch: source, size: 8}}\nfamilies: {families}\n"
GRAPH = """\
stages:
  ingest: {{cmd: python stage.py ingest {work} raw source, deps: [source], outs: [raw]}}
  prepare: {{cmd: python stage.py prepare {work} prepared raw, deps: [raw], outs: [prepared]}}
  reference: {{cmd: python stage.py reference {work} reference prepared, deps: [prepared], outs: [reference]}}
  train:
    foreach: ${{families}}
    do:
      cmd: python stage.py train-${{key}} {work} model-${{key}} prepared
      deps: [prepared]
      outs: ["model-${{key}}"]
  evaluate:
    foreach: ${{families}}
    do:
      cmd: python stage.py evaluate-${{key}} {work} features-${{key}} reference model-${{key}}
      deps: [reference, "model-${{key}}"]
      outs: ["features-${{key}}"]
  fuse: {{cmd: python stage.py fuse {work} fused, deps: [{features}], outs: [fused]}}
  choose: {{cmd: python stage.py choose {work} chosen fused, deps: [fused], outs: [chosen]}}
  judge: {{cmd: python stage.py judge {work} judged chosen, deps: [chosen], outs: [judged]}}
  register: {{cmd: python stage.py register {work} registered judged, deps: [judged], outs: [registered]}}
"""
LEVELS = ("ingest", "prepare", "train", "evaluate", "fuse", "choose", "judge", "register")
MEMBERS = """\
stages:
  train:
    foreach: ${{families}}
    do: {{cmd: "python stage.py ${{key}} {work} model-${{key}} source", deps: [source], outs: ["model-${{key}}"]}}
"""


@dataclass(frozen=True)
class Row:
    """One line of the table; fulfilled: None where there is no target."""

    what: str
    measured: str
    target: str = ""
    fulfilled: bool | None = None


class Checkout:
    """A folder with git, DVC and stand-ins for stages, and an environment whose services are its own."""

    def __init__(self, folder: Path, graph: str, work: str, families: int, server: str | None) -> None:
        self.folder = folder
        names = [f"f{number}" for number in range(families)]
        features = ", ".join(f"features-{name}" for name in names)
        written = {
            "dvc.yaml": graph.format(work=work, features=features),
            "params.yaml": PARAMS.format(families={name: {"architecture": "mlp", "kimg": 1} for name in names}),
            "stage.py": STAGE,
            "pipeline/__init__.py": "",
            "pipeline/__main__.py": CHECK,
            "source": "images",
        }
        (folder / "pipeline").mkdir(parents=True)
        for name, text in written.items():
            (folder / name).write_text(text)
        self.environment = own_environment(folder) | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
        if server:
            self.environment["PREFECT_API_URL"] = server
        for command in (["git", "init", "-q"], [*DVC, "init", "-q"]):
            self.run(command)
        shutil.copyfile(ROOT / ".dvc" / "config", folder / ".dvc" / "config")

    def open_stores(self) -> None:
        """Let MLflow and Prefect make their tables, which they do once and which takes longer than what is measured."""
        code = "from pathlib import Path; from pipeline.tracking import Tracker; Tracker(Path.cwd())"
        self.run([*PYTHON, "-c", code])
        if "PREFECT_API_URL" not in self.environment:
            self.run([*PYTHON, "-m", "prefect", "server", "database", "upgrade", "-y"])

    def run(self, command: list[str]) -> tuple[float, float]:
        """Run a command to its end; return when it began and ended."""
        return run(command, self.folder, self.environment)

    def events(self) -> dict[str, tuple[float, float]]:
        """Return when each stage's own command began and ended."""
        rows = [line.split() for line in (self.folder / "log").read_text().splitlines()]
        at = {(name, what): float(when) for name, what, when in rows}
        return {name: (at[name, "begins"], at[name, "ends"]) for name, _ in at}


def own_environment(folder: Path) -> dict[str, str]:
    """Return an environment in which this code is found and Prefect keeps its database in `folder`."""
    own = {"PREFECT_HOME": str(folder / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    inherited = {name: value for name, value in stage_environment(threads=1).items() if name != "PREFECT_API_URL"}
    return inherited | own | {"PYTHONPATH": str(ROOT)}


def run(command: list[str], folder: Path, environment: Mapping[str, str]) -> tuple[float, float]:
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return began, time.monotonic()


def seconds(command: list[str], folder: Path, environment: Mapping[str, str], times: int = 3) -> float:
    """Return the shortest of several runs: what a command takes, without what else the machine did."""
    runs = (run(command, folder, environment) for _ in range(times))
    return min(end - begin for begin, end in runs)


@contextmanager
def checkout(graph: str, work: str, families: int, server: str | None = None) -> Iterator[Checkout]:
    folder = Path(tempfile.mkdtemp(prefix="orchestration-"))
    try:
        yield Checkout(folder / "project", graph, work, families, server)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # Prefect's server may still write there


@contextmanager
def prefect_server() -> Iterator[str]:
    """Yield the address of a Prefect server, as one stands where runs are scheduled."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/api"
    folder = Path(tempfile.mkdtemp(prefix="orchestration-"))
    command = [*PYTHON, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=own_environment(folder), stdout=log, stderr=log)
    try:
        while not answers(f"{address}/health"):
            if process.poll() is not None:
                raise SystemExit(f"Prefect's server ended:\n{(folder / 'log').read_text()}")
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def answers(url: str) -> bool:
    try:
        return bool(urllib.request.urlopen(url, timeout=5).status == 200)
    except OSError:
        return False


def help_rows() -> Iterator[Row]:
    for module in ("pipeline", "flows.retrain"):
        took = seconds([sys.executable, "-m", module, "--help"], ROOT, os.environ, times=5)
        yield Row(f"python -m {module} --help", f"{took:.2f} s", "under 0.5 s", took < 0.5)


def planning_row(stages: int) -> Row:
    # Beside the stages of each family there are seven others.
    with checkout(GRAPH, "sleep 0", (stages - 7) // 2) as project:
        took = seconds([*FLOW, "--plan"], project.folder, project.environment, times=1)
    return Row(f"planning {stages:,} stages", f"{took:.1f} s", "under 10 s", took < 10)


def empty_flow(server: str) -> float:
    """Return the seconds of a process in which Prefect runs a flow with nothing in it: what Prefect's start takes."""
    folder = Path(tempfile.mkdtemp(prefix="orchestration-"))
    try:
        return seconds([*PYTHON, "-c", EMPTY], folder, own_environment(folder) | {"PREFECT_API_URL": server})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def idle_row(what: str, folder: Path, environment: Mapping[str, str], start: float) -> Row:
    """Measure a run with nothing to do; start: what Prefect's start takes, which such a run leaves out."""
    took = seconds(FLOW, folder, environment)
    measured = f"{took:.1f} s, an empty Prefect flow {start:.1f} s"
    return Row(f"nothing to do, {what}", measured, "under 3 s more", took - start < 3)


def overhead_rows(stage_seconds: float, server: str | None) -> Iterator[Row]:
    """Measure short stages, each level of the graph waiting for the one above; long ones cost the same beside."""
    with checkout(GRAPH, f"sleep {stage_seconds:g}", 2, server) as project:
        project.open_stores()
        began, ended = project.run([*FLOW, "--slots", "4"])
        events = project.events()
        if server:
            yield idle_row("stand-ins", project.folder, project.environment, empty_flow(server))
    levels = [[at for name, at in events.items() if name.partition("-")[0] == level] for level in LEVELS]
    begins, ends = [min(b for b, _ in level) for level in levels], [max(e for _, e in level) for level in levels]
    # Stages of one level begin one after another: what is more than one stage's time belongs to the overhead.
    bare = len(LEVELS) * stage_seconds
    head, tail = begins[0] - began, ended - ends[-1]
    between = (ends[-1] - begins[0] - bare) / (len(LEVELS) - 1)
    share = (ended - began - bare) / (len(LEVELS) * MINUTE)
    which = "a standing Prefect server" if server else "a temporary Prefect server"
    said = f"{head:.1f} s before the first stage, {between:.1f} s between two, {tail:.1f} s after the last"
    yield Row(f"flow of {len(LEVELS)} levels with {which}", said)
    yield Row(f"the same, {len(LEVELS)} levels of a minute", f"{share:.1%} more", "at most 5 %", share <= 0.05)


def speed_row(member_seconds: float, server: str) -> Row:
    """Compare with one stage after another; members compute in one thread each."""
    rate = 1_000_000
    begin = time.perf_counter()
    sum(i * i for i in range(rate))
    amount = int(rate * member_seconds / (time.perf_counter() - begin))
    took = []
    for command in ([*DVC, "repro"], [*FLOW, "--slots", "2"]):
        with checkout(MEMBERS, f"compute {amount}", 6, server) as project:
            project.open_stores()
            began, ended = project.run(command)
            took.append(ended - began)
    serial, flow = took
    measured = f"{serial:.0f} s ÷ {flow:.0f} s = {serial / flow:.2f}"
    what = f"dvc repro ÷ flow, 6 members of {member_seconds:g} s in 2 slots"
    return Row(what, measured, "at least 1.8", serial / flow >= 1.8)


def table(rows: list[Row]) -> str:
    words = {None: "", True: "yes", False: "no"}
    lines = ["| what | measured | target | |", "| --- | --- | --- | --- |"]
    return "\n".join(lines + [f"| {r.what} | {r.measured} | {r.target} | {words[r.fulfilled]} |" for r in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--stages", type=int, default=1000, help="of the graph that is planned (default: 1000)")
    parser.add_argument("--sleep", type=float, default=1.0, help="seconds of a stage (default: 1)")
    parser.add_argument("--members", type=float, default=MINUTE, help="seconds of a member (default: 60)")
    parser.add_argument("--up-to-date", type=Path, metavar="DIR", help="a checkout in which there is nothing to do")
    options = parser.parse_args()
    rows = [*help_rows(), planning_row(options.stages), *overhead_rows(options.sleep, server=None)]
    with prefect_server() as server:
        if options.up_to_date:
            given = options.up_to_date, stage_environment(threads=1)
            rows.append(idle_row("the real pipeline", *given, empty_flow(server)))
        rows += [*overhead_rows(options.sleep, server), speed_row(options.members, server)]
    print(f"{usable_cores()} cores ({platform.machine()}), load {os.getloadavg()[0]:.1f}\n")
    print(table(rows))


if __name__ == "__main__":
    main()
