"""Why each stage of a run did what it did, in words for the journal."""

from collections.abc import Callable, Sequence

from flows.onlookers.watcher import Watcher
from flows.planning.graph import Graph
from flows.planning.plan import LEAVE, Step
from flows.records.journal import COMPLETED, StageEntry
from flows.stages.outcomes import CLEAN, FAILED, GIVEN_UP, SKIPPED, STOPPED, Outcome, Result


class Account(Watcher):
    """Turns the outcomes of one run into entries of the journal; an outcome comes after those of the stages above.

    steps: what was planned for the run. add: takes each entry.
    """

    def __init__(self, graph: Graph, steps: Sequence[Step], add: Callable[[StageEntry], None]) -> None:
        self._graph, self._add = graph, add
        self._steps = {step.stage: step for step in steps}
        self._bad: set[str] = set()

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of the run."""
        return tuple(self._steps)

    def ended(self, outcome: Outcome) -> None:
        self._add(self.entry(outcome))

    def entry(self, outcome: Outcome) -> StageEntry:
        if outcome.what in (FAILED, STOPPED):
            self._bad.add(outcome.stage)
        return StageEntry(
            stage=outcome.stage,
            what=outcome.what,
            seconds=round(outcome.seconds, 3),
            why=self._why(outcome),
            attempts=outcome.attempts,
        )

    def _why(self, outcome: Outcome) -> str:
        step = self._steps.get(outcome.stage)
        if outcome.what == SKIPPED:
            causes = sorted(self._bad & self._graph.above(outcome.stage))
            return f"{', '.join(causes)} went wrong" if causes else "the run was stopped"
        if outcome.what in (FAILED, GIVEN_UP):
            return (outcome.message.splitlines() or [""])[-1]
        if outcome.what == CLEAN:
            return "nothing changed" if step is None or step.what == LEAVE else "its inputs came out as they were"
        return step.why if step else ""


def state_of(result: Result) -> str:
    """Return the journal's word for how a run ended."""
    if result.stopped_by is not None:
        return STOPPED
    return FAILED if result.failed else COMPLETED
