"""One stage's command, run through DVC in a slot, and what came of it."""

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flows.devices.slots import Pool
from flows.onlookers.watcher import Watcher
from flows.planning.graph import Graph, family, rung, trains
from flows.stages.attempts import OTHERS, OTHERS_SECONDS, Patience, stage_status, what_can_pass
from flows.stages.process import Overdue, Processes
from pipeline.exclusive import Busy, BusyError, alone, stage_lock
from pipeline.exits import BAD_INPUT, CAN_PASS, NO_ROOM, no_room, status_of
from pipeline.params.redaction import redact
from pipeline.tracking import PIPELINE_RUN

RAN, RESTORED, CLEAN = "ran", "restored from cache", "up to date"
FAILED, STOPPED, SKIPPED = "failed", "stopped", "not run"
GIVEN_UP = "given up"  # a family could not be trained, and the run goes on without it
HELD = "version is there"  # of the check of the registry
# How DVC says which of the three it did.
SIGNS = {
    "Running stage '": RAN,
    "is cached - skipping run": RESTORED,
    "Pulling data for stage": RESTORED,
    "didn't change, skipping": CLEAN,
}
# Advice to people who type dvc's commands; in a flow's log it only hides the stage's own lines.
ADVICE = (
    "To track the changes with git",
    "\tgit add",
    "To enable auto staging",
    "\tdvc config core.autostage",
    "Use `dvc push`",
    "Updating lock file",
    "Generating lock file",
)
VERIFY = "verify"  # the check of the registry, which is no stage but ends like one
OVERDUE = 124  # as coreutils' `timeout` has it
# Of a training that failed by no fault of its family's: it did not end by itself, or it told what a person has to mend.
BLAMELESS = (0, BAD_INPUT, NO_ROOM)
KEPT = 12  # last lines of a failed stage that are shown again at the end


@dataclass(frozen=True)
class Outcome:
    """What happened to a stage: one of the words above, how many seconds it took, and a message where it went wrong.

    attempts: how many of them the seconds are of. passing: why another attempt may succeed; empty where none will.
    status: what the stage's own command ended with, or 124 where it took too long; 0 where it was not that.
    """

    stage: str
    what: str
    seconds: float = 0.0
    message: str = ""
    attempts: int = 1
    passing: str = ""
    status: int = 0

    @property
    def changed(self) -> bool:
        return self.what in (RAN, RESTORED, GIVEN_UP)

    @property
    def succeeded(self) -> bool:
        return self.changed or self.what == CLEAN


@dataclass(frozen=True)
class Result:
    """How a run ended: the outcomes of its stages and of the check of the registry, and the signal that stopped it."""

    outcomes: tuple[Outcome, ...]
    stopped_by: int | None = None

    @property
    def failed(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.what == FAILED)

    @property
    def given_up(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.what == GIVEN_UP)

    @property
    def message(self) -> str:
        """One line for each thing that went wrong, with the last lines of its output below it."""
        if self.stopped_by is not None:
            return "stopped; what was complete is kept, a training goes on from its checkpoint next time"
        parts = [f"{o.stage} failed:\n{_indented(o.message)}" for o in self.failed]
        parts += [f"{o.stage} was given up, the run went on without:\n{_indented(o.message)}" for o in self.given_up]
        if skipped := [outcome.stage for outcome in self.outcomes if outcome.what == SKIPPED]:
            parts.append(f"not run because of that: {', '.join(skipped)}")
        return "\n".join(parts) or "all stages are up to date"

    @property
    def mlflow_status(self) -> str:
        if self.stopped_by is not None:
            return "KILLED"
        return "FAILED" if self.failed else "FINISHED"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def stage_environment(threads: int, pipeline_run: str | None = None) -> dict[str, str]:
    """Return the environment that stage processes get: this `python`, their threads, their MLflow parent."""
    here = Path(sys.executable).parent
    count = str(threads)
    environment = {
        **os.environ,
        "PATH": f"{here}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
    }
    return environment | ({PIPELINE_RUN: pipeline_run} if pipeline_run else {})


class Execution:
    """Runs the stages of one flow run and keeps their outcomes by name."""

    def __init__(
        self,
        root: Path,
        graph: Graph,
        pool: Pool,
        processes: Processes,
        environment: Mapping[str, str],
        *,
        force: bool = False,
        patience: Patience | None = None,
        limits: Mapping[str, float] | None = None,
        watcher: Watcher | None = None,
        busy: Busy = "refuse",
    ) -> None:
        self.root, self.graph, self.pool, self.processes = root, graph, pool, processes
        self.environment, self.force = environment, force
        self.patience, self.watcher = patience or Patience(), watcher or Watcher()
        self.limits, self.busy = limits or {}, busy  # limits: seconds by stage
        self.outcomes: dict[str, Outcome] = {}
        self._above: Mapping[str, tuple[str, ...]] = {}
        self._done: dict[str, Outcome] = {}  # those that succeeded

    def run(self, stage: str, upstream: Sequence[Outcome], log: Callable[[str], None]) -> Outcome:
        """Bring one stage up to date; DVC is not even asked where nothing above has changed.

        log: called with each line of the stage's output.
        """
        try:
            outcome = self._run(stage, upstream, log)
        except Exception as error:  # whatever goes wrong around its command, the stage has failed
            outcome = broken(stage, error)
        self.record(outcome)
        return outcome

    def _run(self, stage: str, upstream: Sequence[Outcome], log: Callable[[str], None]) -> Outcome:
        if not self._has_work(stage, upstream):
            outcome = Outcome(stage, CLEAN)
            self._announce(outcome)
            return outcome
        log = self.overheard(stage, log)
        outcome = self._attempts(stage, log)
        if trains(stage) and outcome.what == FAILED and outcome.status not in BLAMELESS:
            again = self.graph.stages[stage].again
            outcome = self._take_back(outcome, log) if again else self._give_up(outcome, log)
        return outcome

    def begin(self, selected: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """Take on the selected stages, before the first of them runs; return the stages that each has to wait for."""
        self._above = {stage: self.graph.before(stage, selected) for stage in selected}
        self.pool.expect(stage for stage, above in self._above.items() if not above and self._has_work(stage, ()))
        return self._above

    def overheard(self, stage: str, log: Callable[[str], None]) -> Callable[[str], None]:
        """Return `log` with the watcher listening to it."""

        def both(line: str) -> None:
            log(line)
            self.watcher.said(stage, line)

        return both

    def record(self, outcome: Outcome) -> None:
        """Keep what happened to a stage, or to the check of the registry, and tell the watcher."""
        self.outcomes[outcome.stage] = outcome
        self.watcher.ended(outcome)

    def _has_work(self, stage: str, upstream: Sequence[Outcome]) -> bool:
        return self.force or bool(self.graph.stages[stage].reasons) or any(above.changed for above in upstream)

    def _announce(self, outcome: Outcome) -> None:
        """Announce the stages that can begin after this one, before its slot is free for a less urgent one."""
        if not outcome.succeeded:
            return
        self._done[outcome.stage] = outcome
        below = [stage for stage, above in self._above.items() if outcome.stage in above]
        ready = [stage for stage in below if self._done.keys() >= set(self._above[stage])]
        self.pool.expect(s for s in ready if self._has_work(s, [self._done[name] for name in self._above[s]]))

    def _attempts(self, stage: str, log: Callable[[str], None]) -> Outcome:
        """Reproduce a stage, again and again while its failure can pass; others may have its slot between attempts.

        Where `busy` says to wait for other processes, that is no attempt and has no end.
        """
        seconds, attempt = 0.0, 1
        while True:
            if taken := self._taken(stage, log):
                return replace(taken, seconds=seconds, attempts=attempt)
            with self.pool.slot(stage, lambda: self.processes.stopped) as slot:
                if slot is None:
                    outcome = Outcome(stage, SKIPPED)
                else:
                    self.watcher.began(stage)
                    outcome = self._reproduce(stage, slot, log)
                self._announce(outcome)
            seconds += outcome.seconds
            for_others = outcome.passing == OTHERS and self.busy == "wait"
            wait = OTHERS_SECONDS if for_others else self.patience.wait(attempt) if outcome.passing else None
            if wait is None:
                break
            attempt += not for_others
            what = "waiting for it" if for_others else f"attempt {attempt} of {self.patience.retries + 1} in {wait:g} s"
            log(f"{stage}: {outcome.passing}; {what}")
            if self.processes.stopped_within(wait):
                outcome = Outcome(stage, STOPPED)
                break
        return replace(outcome, seconds=seconds, attempts=attempt)

    def _take_back(self, outcome: Outcome, log: Callable[[str], None]) -> Outcome:
        """Put the recorded result back in place of a second try that ended badly: its sound members are worth more."""
        stage = outcome.stage
        restored = self._dvc(stage, {}, log, "checkout", "--force", stage)
        if restored.what != RAN:
            return outcome
        outcome = replace(outcome, what=RESTORED)
        self._announce(outcome)
        return outcome

    def _give_up(self, outcome: Outcome, log: Callable[[str], None]) -> Outcome:
        """Record a training that ended badly for good, so that what the other families made is fused without it."""
        stage = outcome.stage
        why = next((line for line in reversed(outcome.message.splitlines()) if not line.startswith("ERROR: ")), FAILED)
        command = [sys.executable, "-m", "pipeline", "give-up", str(family(stage)), "--rung", str(rung(stage))]
        command += [f"--why={why}"]

        def run(on_line: Callable[[str], None]) -> int:
            return self.processes.run(command, self.root, self.environment, on_line)

        recorded = follow(self.processes, stage, run, log)
        if recorded.what != RAN:
            return outcome
        outcome = replace(outcome, what=GIVEN_UP)
        self._announce(outcome)
        return outcome

    def _taken(self, stage: str, log: Callable[[str], None]) -> Outcome | None:
        """Wait until nobody works on the stage by hand, or return that it cannot run.

        The stage's command would wait or refuse by itself, but DVC deletes its outputs before it starts that.
        """
        try:
            with alone(stage_lock(self.root, stage), stage, self.busy, log, lambda: self.processes.stopped):
                return None
        except BusyError as error:
            return Outcome(stage, STOPPED if self.processes.stopped else FAILED, message=str(error))

    def _reproduce(self, stage: str, slot: Mapping[str, str], log: Callable[[str], None]) -> Outcome:
        return self._dvc(stage, slot, log, "repro", "--single-item", stage, *self._forced(stage))

    def _forced(self, stage: str) -> tuple[str, ...]:
        return ("--force",) if self.force or self.graph.stages[stage].again else ()

    def _dvc(self, name: str, slot: Mapping[str, str], log: Callable[[str], None], *arguments: str) -> Outcome:
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
        environment = {**self.environment, **slot}
        limit = self.limits.get(name)

        def run(on_line: Callable[[str], None]) -> int:
            return self.processes.run(command, self.root, environment, on_line, limit)

        return follow(self.processes, name, run, log)


def verify(processes: Processes, root: Path, environment: Mapping[str, str], log: Callable[[str], None]) -> Outcome:
    """Check that the registry holds the chosen model; the command registers it again where it was lost."""
    command = [sys.executable, "-m", "pipeline", "verify"]
    outcome = follow(processes, VERIFY, lambda on_line: processes.run(command, root, environment, on_line), log)
    return replace(outcome, what=HELD) if outcome.what == RAN else outcome


def follow(
    processes: Processes, name: str, run: Callable[[Callable[[str], None]], int], log: Callable[[str], None]
) -> Outcome:
    """Run a command, pass on what it says, and tell from that what happened.

    run: called with what is to be called with each line; returns the command's status, or raises `Overdue`.
    """
    what = RAN
    said: deque[str] = deque(maxlen=200)

    def on_line(line: str) -> None:
        nonlocal what
        if not line or line.startswith(ADVICE):
            return
        line = redact(line)
        what = next((happened for sign, happened in SIGNS.items() if sign in line), what)
        said.append(line)
        log(line)

    began = time.monotonic()
    try:
        status = run(on_line)
    except Overdue as error:
        return Outcome(name, FAILED, time.monotonic() - began, str(error), status=OVERDUE)
    except Exception as error:  # the command did not even start, or not to its end
        return broken(name, error, time.monotonic() - began)
    seconds = time.monotonic() - began
    if status == 0:
        return Outcome(name, what, seconds)
    if processes.stopped:
        return Outcome(name, STOPPED, seconds)
    lines = list(said)
    return Outcome(
        name,
        FAILED,
        seconds,
        failure_message(status, lines),
        passing=what_can_pass(status, lines),
        status=stage_status(lines) or 0,
    )


def broken(name: str, error: Exception, seconds: float = 0.0) -> Outcome:
    """Return the outcome of a stage that an error of the flow itself kept from its end."""
    status = status_of(error)
    message = no_room(error) if status == NO_ROOM else f"{type(error).__name__}: {error}"
    passing = "its cause can pass" if status == CAN_PASS else ""
    return Outcome(name, FAILED, seconds, redact(message), passing=passing)


def failure_message(status: int, lines: Sequence[str]) -> str:
    """Return what to show of a failed command: the one message of bad input or of a full disk, else its last lines.

    status: the command's own; `dvc` has another one and tells its command's at the end of a line.
    """
    if not lines:
        return f"ended with status {status} and said nothing"
    start = next((place for place, line in enumerate(lines) if line.startswith("chorus: ")), None)
    said = next((known for known in (BAD_INPUT, NO_ROOM) if lines[-1].endswith(f"exited with {known}")), status)
    if start is not None and said in (BAD_INPUT, NO_ROOM):
        return "\n".join(line for line in lines[start:] if not line.startswith("ERROR: failed to reproduce"))
    return "\n".join(lines[-KEPT:])
