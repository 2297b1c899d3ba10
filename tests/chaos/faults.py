"""The faults: each starts the flow of a trial, disturbs it, waits for its end and removes the cause."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import yaml

from tests.chaos import processes, undoing
from tests.chaos.processes import above, send, until
from tests.chaos.trial import AT_WORK, MOMENTS, Flow, Trial

if TYPE_CHECKING:
    from tests.chaos.stand import Stand

Fault = Callable[["Trial", "Stand"], None]
FAULTS: dict[str, Fault] = {}
TRAINING = 300.0  # seconds in which a checkpoint is to appear


def fault(name: str) -> Callable[[Fault], Fault]:
    def register(function: Fault) -> Fault:
        FAULTS[name] = function
        return function

    return register


def killing(number: signal.Signals, whom: Callable[[psutil.Process, Flow], psutil.Process]) -> Fault:
    """Return a fault that sends a signal at a seeded moment."""

    def disturb(trial: Trial, _stand: "Stand") -> None:
        with trial.flow() as flow:
            victim = whom(trial.victim(flow, (AT_WORK,) if whom is itself else MOMENTS), flow)
            if not send(victim, number):
                trial.account += " (it had just ended)"
                trial.disturbed = False
            flow.wait()

    return disturb


def the_flow(_stage: psutil.Process, flow: Flow) -> psutil.Process:
    return flow.root


def its_dvc(stage: psutil.Process, flow: Flow) -> psutil.Process:
    """The `dvc` of the stage; where that has gone on from the stage, any `dvc` of the flow."""
    try:
        return above(stage, flow.root)
    except psutil.Error:
        return next((child for child in flow.root.children() if "repro" in child.cmdline()), stage)


def itself(stage: psutil.Process, _flow: Flow) -> psutil.Process:
    return stage


for number in (signal.SIGKILL, signal.SIGTERM):
    for what, whom in {"flow": the_flow, "dvc": its_dvc, "stage": itself}.items():
        FAULTS[f"{what} {number.name}"] = killing(number, whom)


@fault("power cut")
def power_cut(trial: Trial, _stand: "Stand") -> None:
    """All processes at once, as when the machine goes down; what they had written stays."""
    with trial.flow() as flow:
        trial.victim(flow)
        for process in processes.alive(trial.name):
            send(process, signal.SIGKILL)
        flow.wait()


@fault("MLflow away")
def mlflow_away(trial: Trial, stand: "Stand") -> None:
    """The tracking server ended in the middle, at once or in good order, and started again some seconds later."""
    server = trial.servers.enter_context(stand.mlflow(trial))
    with trial.flow() as flow:
        trial.victim(flow)
        server.end(trial.random.choice((signal.SIGKILL, signal.SIGTERM)))
        until(lambda: flow.process.poll() is not None, trial.random.uniform(2, 8))
        server.start()
        flow.wait()


@fault("Prefect away")
def prefect_away(trial: Trial, stand: "Stand") -> None:
    with trial.flow() as flow:
        trial.victim(flow)
        stand.prefect.kill()
        until(lambda: flow.process.poll() is not None, trial.random.uniform(2, 8))
        stand.prefect.start()
        flow.wait()


@fault("disk full")
def disk_full(trial: Trial, stand: "Stand") -> None:
    """Room for a seeded share of what the stages write, checkpoints, records and databases among it."""
    share = trial.random.random()
    trial.account = f"with room for {share:.0%} of what is written"
    stand.disk.leave(int(share * trial.written))
    try:
        with trial.flow() as flow:
            flow.wait()
    finally:
        stand.disk.grow()


@fault("damaged checkpoint")
def damaged_checkpoint(trial: Trial, stand: "Stand") -> None:
    """All killed once a training has a checkpoint, which is then cut short, emptied or altered in one byte."""
    trainings = [stage for stage in trial.undone if stage.startswith("train@")]
    family = trial.random.choice(trainings).removeprefix("train@")
    wanted, seen = trial.random.randint(1, 5), set[int]()

    def saved() -> list[Path]:
        found = sorted((trial.root / ".checkpoints" / family).glob("*/*/checkpoint.safetensors"))
        seen.update(path.stat().st_mtime_ns for path in found if path.exists())
        return found if len(seen) >= wanted else []

    with trial.flow() as flow:
        until(lambda: saved() or flow.process.poll() is not None, TRAINING)
        for process in processes.alive(trial.name):
            send(process, signal.SIGKILL)
        flow.wait()
    left = list((trial.root / ".checkpoints" / family).glob("*/*/checkpoint.safetensors"))
    trial.disturbed = bool(left)
    for path in left:
        trial.account = f"checkpoint {len(seen)} of {family} {damage(trial, path)}"


@fault("damaged cache")
def damaged_cache(trial: Trial, _stand: "Stand") -> None:
    """A file of DVC's cache damaged, and the output that it belongs to lost, after a flow that was ended by SIGTERM."""
    with trial.flow() as flow:
        send(the_flow(trial.victim(flow), flow), signal.SIGTERM)
        flow.wait()
    lock = yaml.safe_load((trial.root / "dvc.lock").read_text())["stages"]
    stage = trial.random.choice(sorted(name for name in lock if name not in ("gate", "register")))
    oids = sorted({*undoing.objects(trial.root, lock[stage])})
    path = undoing.cached(trial.root, trial.random.choice(oids))
    trial.account = f"a file of {stage} {damage(trial, path)}"
    for out in lock[stage]["outs"]:
        undoing.remove(trial.root / out["path"])


def damage(trial: Trial, path: Path) -> str:
    """Cut a file short, empty it or alter one byte, and return which."""
    content, mode = path.read_bytes(), path.stat().st_mode
    place = trial.random.randrange(max(1, len(content)))
    how = trial.random.choice(["cut short", "emptied", "altered"])
    kept = {"cut short": content[:place], "emptied": b"", "altered": bytes([content[place] ^ 1]) if content else b""}[
        how
    ]
    path.chmod(0o644)
    path.write_bytes(content[:place] + kept + content[place + 1 :] if how == "altered" else kept)
    path.chmod(mode)
    return how
