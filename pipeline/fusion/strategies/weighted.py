"""The mixture of all candidates with the smallest Fréchet distance: a convex problem, solved to a certified gap."""

import numpy as np

from pipeline.fusion.mixture import MixtureDistance
from pipeline.fusion.simplex import prune
from pipeline.fusion.strategies._base import Fusion, Problem, combine, register


@register("weighted")
def weighted(problem: Problem) -> Fusion:
    distance = MixtureDistance.of([candidate.moments for candidate in problem.pool], problem.real)
    optimum = distance.optimum()
    weights = prune(optimum.weights)
    by_id = {c.id: float(w) for c, w in zip(problem.pool, weights, strict=True) if w > 0}
    evidence = {
        "weights": by_id,
        "kkt_residual": optimum.gap,
        "steps": optimum.steps,
        "fit_uniform": distance(np.full(len(weights), 1 / len(weights)))[0],
        "fit_after_pruning": distance(weights)[0],
    }
    return Fusion(combine("mixture", by_id), evidence)
