"""One trial: some stages undone, a flow disturbed at a seeded moment, the flow started again, and what is seen then."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import psutil

from tests.chaos import evidence, processes
from tests.chaos.processes import MARK, POLL, stages, until

PATIENCE = 900  # seconds for one flow; the machine may be busy with other things
COMMIT_SECONDS = 1.5  # in which dvc hashes, caches and records what a stage wrote
AT_WORK, AFTER = "at work", "after"
MOMENTS = (AT_WORK, AT_WORK, AFTER)  # of a stage, drawn with equal chances


class WithoutEffect(Exception):
    """Nothing was disturbed: what was to be had just ended, or was not there."""


class Unrecovered(Exception):
    """What the trial found wrong; the message has a line for each thing."""


@dataclass
class Flow:
    """A flow in a process of its own and the stages that were seen below it."""

    process: subprocess.Popen[bytes]
    commands: dict[str, str]
    seen: dict[str, tuple[float, float]] = field(default_factory=dict)  # first and last seconds at which each was there

    @cached_property
    def root(self) -> psutil.Process:
        return psutil.Process(self.process.pid)

    def look(self) -> dict[str, psutil.Process]:
        """Return the stages that run now, and remember when they were there."""
        now, running = time.monotonic(), dict(stages(self.root, self.commands))
        for name in running:
            self.seen[name] = (self.seen.get(name, (now, now))[0], now)
        return running

    def wait(self) -> int:
        """Wait for its end, looking on, and return the exit status."""
        deadline = time.monotonic() + PATIENCE
        while (status := self.process.poll()) is None:
            if time.monotonic() > deadline:
                raise Unrecovered(f"the flow has not ended after {PATIENCE} s")
            self.look()
            time.sleep(10 * POLL)
        return status


@dataclass
class Trial:
    """A checkout with undone stages, and the draws that decide when and where it is disturbed.

    undone: names of the stages that have to run. commands: those of all stages. lasting: seconds that each stage's
    command took undisturbed. written: bytes that all of them wrote.
    """

    name: str
    root: Path
    undone: tuple[str, ...]
    commands: dict[str, str]
    random: random.Random
    environment: dict[str, str]
    lasting: dict[str, float] = field(default_factory=dict)
    written: int = 0
    command: tuple[str, ...] = (sys.executable, "-m", "flows.retrain")
    account: str = ""  # what was done and when, in words
    disturbed: bool = True
    servers: ExitStack = field(default_factory=ExitStack)  # of this trial alone, closed after it
    flows: int = 0

    @property
    def log(self) -> Path:
        """Where the flow that was started last writes to."""
        return self.root.parent / f"flow{self.flows}.log"

    @contextmanager
    def flow(self) -> Iterator[Flow]:
        """Start the flow; whatever of it still runs at the end of the context stays for the next one to find."""
        self.flows += 1
        environment = {**os.environ, **self.environment, MARK: self.name}
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                self.command,
                cwd=self.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        yield Flow(process, self.commands)

    def victim(self, flow: Flow, moments: Sequence[str] = MOMENTS) -> psutil.Process:
        """Wait for the seeded moment of a seeded stage and return the process of its command, which may have ended."""
        stage = self.random.choice(self.undone)
        moment, share = self.random.choice(moments), self.random.random()
        found: dict[str, psutil.Process] = {}

        def started() -> bool:
            found.update(flow.look())
            return stage in found or flow.process.poll() is not None

        if not until(started, PATIENCE) or stage not in found:
            raise Unrecovered(f"the flow ended before {stage} had begun")
        process = found[stage]
        if moment == AT_WORK:
            time.sleep(share * self.lasting.get(stage, 1.0))
        else:
            until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, PATIENCE)
            time.sleep(share * COMMIT_SECONDS)
        self.account = f"{share:.0%} into {stage}" if moment == AT_WORK else f"after {stage}"
        return process

    def start_again(self) -> list[str]:
        """Start the flow anew and return what is wrong with its end, if anything."""
        with self.flow() as flow:
            status = flow.wait()
        return [f"the next start ended with {status}"] if status else []

    def left_over(self, store: Path, prefect: str) -> list[str]:
        """Return what is still open now that the last flow has ended, in words.

        store: MLflow's SQLite file. prefect: address of the server's API.
        """
        wrong = [*evidence.open_mlflow_runs(store), *evidence.open_prefect_runs(prefect)]
        wrong += evidence.half_written(self.root)
        until(lambda: not processes.alive(self.name), 5)
        wrong += [f"{process.pid} still runs: {' '.join(process.cmdline())}" for process in processes.alive(self.name)]
        return wrong
