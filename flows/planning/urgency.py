"""Which of the stages that could begin should: the one with the longest way to go."""

from collections.abc import Mapping, Sequence

from flows.planning.graph import Graph, group
from flows.planning.plan import LEAVE, RESTORE, Step

UNKNOWN = 1.0  # seconds of a stage where none was ever measured: then the number of stages below counts


def urgencies(graph: Graph, steps: Sequence[Step], measured: Mapping[str, float]) -> dict[str, float]:
    """Return for each stage of a plan the seconds that the longest path from its beginning to the graph's end takes.

    This is the upward rank of list scheduling (Topcuoglu, Hariri and Wu 2002; Hu 1961 for equal stages): a training
    that the rest waits for begins before a longer one that nothing follows.

    measured: seconds of stages when they last ran. Others are expected to take the mean of those of their kind
    (`train@…`), without any the mean of all. What is up to date or restored takes none.
    """
    expected = dict(zip((step.stage for step in steps), _expected(steps, measured), strict=True))
    ranks: dict[str, float] = {}
    longest_below: dict[str, float] = {}
    for stage in reversed(expected):
        ranks[stage] = expected[stage] + longest_below.get(stage, 0.0)
        for above in graph.before(stage, expected):
            longest_below[above] = max(longest_below.get(above, 0.0), ranks[stage])
    return ranks


def _expected(steps: Sequence[Step], measured: Mapping[str, float]) -> list[float]:
    kinds: dict[str, list[float]] = {}
    for stage, seconds in measured.items():
        kinds.setdefault(group(stage), []).append(seconds)
    overall = _mean(list(measured.values()), UNKNOWN)

    def of(step: Step) -> float:
        if step.what in (LEAVE, RESTORE):
            return 0.0
        return measured.get(step.stage, _mean(kinds.get(group(step.stage), []), overall))

    return [of(step) for step in steps]


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
