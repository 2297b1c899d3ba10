"""Greedy forward selection with replacement on the mixture's distance: how often a candidate is added is its weight."""

from pipeline.fusion.forward import forward_selection
from pipeline.fusion.mixture import MeanDistance
from pipeline.fusion.strategies._base import Fusion, Problem, combine, register


@register("greedy")
def greedy(problem: Problem) -> Fusion:
    distance = MeanDistance.of([candidate.views for candidate in problem.pool], problem.real.views, unbiased=True)
    path = forward_selection(distance, len(problem.pool), problem.settings.greedy_steps, distance.value, distance.bias)
    weights = path.weights(len(problem.pool))
    by_id = {c.id: float(w) for c, w in zip(problem.pool, weights, strict=True) if w > 0}
    picked = [problem.pool[pick].id for pick in path.picks]
    return Fusion(combine("mixture", by_id), {"weights": by_id, "fit": path.value, "picks": picked})
