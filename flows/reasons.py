"""Why each stage of a run did what it did, in words for the journal."""

from collections.abc import Sequence

from flows.execution import CLEAN, FAILED, SKIPPED, STOPPED, Outcome, Result
from flows.graph import Graph
from flows.journal import COMPLETED, StageEntry
from flows.plan import LEAVE, plan


class Account:
    """Turns the outcomes of one run into entries of the journal; an outcome comes after those of the stages above."""

    def __init__(self, graph: Graph, selected: Sequence[str], *, force: bool = False) -> None:
        self._graph = graph
        self._steps = {step.stage: step for step in plan(graph, selected, force=force)}
        self._bad: set[str] = set()

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
        if outcome.what == FAILED:
            return (outcome.message.splitlines() or [""])[-1]
        if outcome.what == CLEAN:
            return "nothing changed" if step is None or step.what == LEAVE else "its inputs came out as they were"
        return step.why if step else ""


def state_of(result: Result) -> str:
    """Return the journal's word for how a run ended."""
    if result.stopped_by is not None:
        return STOPPED
    return FAILED if result.failed else COMPLETED
