"""Which candidates enter the fusion: rules over the pool, applied before any strategy is fitted.

Whatever the rule, the candidate that is nearest to the real images alone is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from pipeline.fusion.forward import forward_selection
from pipeline.fusion.mixture import MeanDistance
from pipeline.fusion.pruning import prune
from pipeline.fusion.strategies._base import Problem


@dataclass(frozen=True)
class Verdict:
    """What became of a candidate, and why in words; distance: its own on the images that everything is fitted on."""

    id: str
    distance: float
    kept: bool
    why: str


@dataclass(frozen=True)
class Selection:
    """What a rule makes of the pool, in its order."""

    rule: str
    verdicts: tuple[Verdict, ...]

    @property
    def kept(self) -> frozenset[str]:
        return frozenset(verdict.id for verdict in self.verdicts if verdict.kept)


Verdicts = dict[str, tuple[bool, str]]  # by candidate: whether it is kept, and why


def select(problem: Problem) -> tuple[Problem, Selection]:
    """Return the problem with the candidates that `fusion.select` keeps, and what became of all."""
    rule = problem.settings.select.rule
    found = RULES[rule](problem)
    verdicts = tuple(Verdict(c.id, problem.distances[c.id], *found[c.id]) for c in problem.pool)
    selection = Selection(rule, verdicts)
    pool = tuple(candidate for candidate in problem.pool if candidate.id in selection.kept)
    distances = {candidate.id: problem.distances[candidate.id] for candidate in pool}
    return replace(problem, pool=pool, distances=distances), selection


def everyone(problem: Problem) -> Verdicts:
    """Keep all."""
    return dict.fromkeys(problem.distances, (True, "all are kept"))


def by_threshold(problem: Problem) -> Verdicts:
    """Keep those no farther away than `factor` times the nearest one."""
    nearest = min(problem.distances.values())
    limit = problem.settings.select.factor * nearest
    shares = {name: own / max(nearest, 1e-12) for name, own in problem.distances.items()}
    return {name: (own <= limit, f"{shares[name]:.3g} times the nearest") for name, own in problem.distances.items()}


def by_rank(problem: Problem) -> Verdicts:
    """Keep the `count` nearest."""
    count = problem.settings.select.count
    return {c.id: (place <= count, f"place {place}") for place, c in enumerate(problem.ranked(), 1)}


def by_forward_selection(problem: Problem) -> Verdicts:
    """Keep those that greedy forward selection on the mixture's distance adds at least once."""
    distance = MeanDistance.of([c.views for c in problem.pool], problem.real.views, unbiased=True)
    steps = problem.settings.greedy_steps
    picks = forward_selection(distance, len(problem.pool), steps, distance.value, distance.bias).picks
    times = {c.id: picks.count(place) for place, c in enumerate(problem.pool)}
    return {name: (often > 0, f"added {often} of {len(picks)} times") for name, often in times.items()}


def by_marginal_gain(problem: Problem) -> Verdicts:
    """Drop those that the best mixture does without: their gain is below `noise` standard errors."""
    always = problem.pool.index(problem.ranked()[0])
    often = problem.settings.select.noise
    kept, gains = prune(problem.pool, problem.real, often, always)
    verdicts = {}
    for place, candidate in enumerate(problem.pool):
        gain = gains.get(place)
        why = f"gain {gain.size:.2g}, noise {gain.noise:.2g}" if gain else "the nearest"
        verdicts[candidate.id] = (place in kept, why)
    return verdicts


RULES: dict[str, Callable[[Problem], Verdicts]] = {
    "all": everyone,
    "threshold": by_threshold,
    "top": by_rank,
    "greedy": by_forward_selection,
    "prune": by_marginal_gain,
}
