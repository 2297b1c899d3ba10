"""The stages of a flow on a cluster: computed on nodes, recorded here, each as `dvc repro` records it."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from flows.cluster.connection import LOST, Cluster, connected
from flows.cluster.handover import HANDED_ON, Handover, prepare
from flows.cluster.lock import read_lock, record_entry
from flows.cluster.order import Order
from flows.cluster.surroundings import surroundings
from flows.devices.slots import Pool
from flows.stages.command import OVERDUE, follow
from flows.stages.execution import Execution
from flows.stages.outcomes import CLEAN, FAILED, GIVEN_UP, RAN, SKIPPED, Outcome
from flows.stages.process import Overdue
from pipeline.project import Project

AWAY = "the DVC remote may answer later"


class ClusterExecution(Execution):
    """Runs the stages of one flow run on a cluster, but for those that only this machine can run.

    Its pool bounds how many stages are under way; `home` hands out this machine's own slots.
    """

    def __init__(
        self, *arguments: Any, cluster: Cluster, handover: Handover, home: Pool, project: Project, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.cluster, self.handover, self.home = cluster, handover, home
        self.threads, self.checkpoints = project.params.compute.threads, project.params.flow.checkpoint_remote
        self._surroundings = surroundings()
        self._offered: set[str] = set()  # stages whose outputs the remote holds

    def _reproduce(self, stage: str, slot: Mapping[str, str], log: Callable[[str], None]) -> Outcome:
        if why := self.handover.at_home.get(stage):
            log(f"stays on this machine: {why}")
        elif lost := self._given_up_above(stage):
            # What stands in for their members is recorded nowhere, so no node could fetch it.
            log(f"stays on this machine, as these were given up: {', '.join(lost)}")
        elif self._forced(stage) or self._computes(stage):
            return self._send(stage, log)
        with self.home.slot(stage, lambda: self.processes.stopped) as own:
            return Outcome(stage, SKIPPED) if own is None else super()._reproduce(stage, own, log)

    def _given_up_above(self, stage: str) -> list[str]:
        above = (self.outcomes.get(name) for name in self.graph.stages[stage].upstream)
        return [outcome.stage for outcome in above if outcome and outcome.what == GIVEN_UP]

    def _computes(self, stage: str) -> bool:
        """Whether DVC would compute the stage, and not leave it or restore it from what this machine has."""
        above = (self.outcomes.get(name) for name in self.graph.stages[stage].upstream)
        if not any(outcome and outcome.changed for outcome in above):
            return not self.graph.stages[stage].cached
        return self._dvc(stage, {}, lambda _line: None, "repro", "--single-item", "--dry", stage).what in (RAN, FAILED)

    def _send(self, stage: str, log: Callable[[str], None]) -> Outcome:
        """Compute a stage on a node and record it here."""
        offered = self._offer_inputs(stage, log)
        if not offered.succeeded:
            return offered
        entry: Any = None

        def run(on_line: Callable[[str], None]) -> int:
            nonlocal entry
            status, entry = self.cluster.run(self._order(stage), self.processes, on_line)
            if status == LOST:
                gone = "its checkpoints went with it: flow.checkpoint_remote, which keeps copies, is not set"
                on_line(f"its checkpoints are at {self.checkpoints}" if self.checkpoints else gone)
            if status == OVERDUE:
                raise Overdue(self.limits[stage])
            return status

        computed = follow(self.processes, stage, run, log)
        if not computed.succeeded:
            return computed
        record_entry(self.root, stage, entry)
        recorded = self._transfer(stage, log, "pull", "--force", stage)
        self._offered.add(stage)
        seconds = offered.seconds + computed.seconds + recorded.seconds
        return replace(computed if recorded.succeeded else recorded, seconds=seconds)

    def _offer_inputs(self, stage: str, log: Callable[[str], None]) -> Outcome:
        """Push what the stages above made on this machine, now or in an earlier run."""
        missing = [name for name in self.graph.stages[stage].upstream if name not in self._offered]
        if not missing:
            return Outcome(stage, CLEAN)
        outcome = self._transfer(stage, log, "push", *missing)
        if outcome.succeeded:
            self._offered.update(missing)
        return outcome

    def _transfer(self, stage: str, log: Callable[[str], None], *arguments: str) -> Outcome:
        """Push or pull; what fails can pass, for a remote may answer later."""
        outcome = self._dvc(stage, {}, log, *arguments)
        if outcome.what == FAILED and outcome.status != OVERDUE:
            return replace(outcome, passing=outcome.passing or AWAY)
        return outcome

    def _order(self, stage: str) -> Order:
        handed_on = {
            name: value for name, value in {**os.environ, **self.environment}.items() if name.startswith(HANDED_ON)
        }
        return Order(
            stage=stage,
            upstream=self.graph.stages[stage].upstream,
            commit=self.handover.commit,
            lock=read_lock(self.root),
            remote=self.handover.remote,
            threads=self.threads,
            surroundings=self._surroundings,
            environment=handed_on,
            force=bool(self._forced(stage)),
            checkpoints=self.checkpoints,
            limit=self.limits.get(stage),
        )


@contextmanager
def on_cluster(address: str | None, project: Project, here: Pool) -> Iterator[Callable[..., ClusterExecution]]:
    """Connect to a Ray cluster while the context lasts; yields what makes an execution there.

    address: None is that of RAY_ADDRESS. here: this machine's slots, for stages that cannot leave it.

    Raises `ChorusError` where the checkout is not ready for it, or no cluster answers.
    """
    handover = prepare(project.root)
    compute = project.params.compute
    with connected(address, compute, project.params.flow.members_per_gpu, handover.cargo) as cluster:
        yield partial(
            ClusterExecution,
            project.root,
            cluster=cluster,
            handover=handover,
            home=here,
            project=project,
        )
