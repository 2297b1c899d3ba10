"""One stage's command, run through DVC in a slot, again where its failure can pass, and given up where it cannot."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from flows.devices.slots import Pool
from flows.onlookers.watcher import Watcher
from flows.planning.graph import Graph, family, rung, trains
from flows.stages.attempts import OTHERS, OTHERS_SECONDS, Patience
from flows.stages.command import follow
from flows.stages.outcomes import CLEAN, FAILED, GIVEN_UP, RAN, RESTORED, SKIPPED, STOPPED, Outcome, broken
from flows.stages.process import Processes
from pipeline.exclusive import Busy, BusyError, alone, stage_lock
from pipeline.exits import BAD_INPUT, NO_ROOM

# Of a training that failed by no fault of its family's: it did not end by itself, or it told what a person has to mend.
BLAMELESS = (0, BAD_INPUT, NO_ROOM)


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
