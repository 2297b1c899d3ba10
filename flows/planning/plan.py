"""What a run would do to each stage, and why, before anything is done."""

from collections.abc import Sequence
from dataclasses import dataclass

from flows.planning.graph import Graph

RUN, RESTORE, LEAVE = "would run", "would be restored", "up to date"


@dataclass(frozen=True)
class Step:
    """One stage of a plan; `what` is one of `RUN`, `RESTORE` (from DVC's cache) and `LEAVE`."""

    stage: str
    what: str
    why: str = ""


def plan(graph: Graph, selected: Sequence[str], *, force: bool = False) -> list[Step]:
    """Return a step for each selected stage, in topological order.

    A stage below one that runs is said to run, though DVC leaves it alone if its inputs come out as they were.
    """
    steps: list[Step] = []
    origins: dict[str, list[str]] = {}  # of the stages whose results may change: where that begins
    for name in selected:
        stage = graph.stages[name]
        above = [origin for up in graph.before(name, selected) for origin in origins.get(up, [])]
        causes = list(dict.fromkeys(above))
        # Inputs that are only missing come back with the stages above.
        own = () if stage.bereft and graph.before(name, selected) else stage.reasons
        if force:
            steps.append(Step(name, RUN, "forced"))
        elif own:
            restored = stage.cached and not causes
            steps.append(Step(name, RESTORE if restored else RUN, "; ".join(own)))
            if restored and not stage.moved:
                continue
        elif causes:
            steps.append(Step(name, RUN, f"because {_listed(causes)}"))
        else:
            steps.append(Step(name, LEAVE))
            continue
        origins[name] = causes or [name]
    return steps


def render(steps: Sequence[Step]) -> str:
    """Return the plan as aligned lines and a closing count."""
    wide = max(len(step.stage) for step in steps)
    lines = [f"{step.stage:<{wide}}  {step.what:<{len(RESTORE)}}  {step.why}".rstrip() for step in steps]
    count = sum(step.what != LEAVE for step in steps)
    return "\n".join([*lines, "", f"{count} of {len(steps)} stages have something to do" if count else "nothing to do"])


def _listed(causes: list[str]) -> str:
    shown = causes if len(causes) <= 3 else [*causes[:2], f"{len(causes) - 2} more"]
    if len(shown) == 1:
        return f"{shown[0]} runs"
    return f"{', '.join(shown[:-1])} and {shown[-1]} run"
