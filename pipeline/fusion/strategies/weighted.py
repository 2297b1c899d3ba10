"""The mixture of all candidates with the smallest Fréchet distance: a convex problem, solved to a certified gap."""

from pipeline.fusion.mixture import MeanDistance
from pipeline.fusion.simplex import gap_at, prune
from pipeline.fusion.strategies._base import Fusion, Problem, combine, register


@register("weighted")
def weighted(problem: Problem) -> Fusion:
    distance = MeanDistance.of([candidate.views for candidate in problem.pool], problem.real.views)
    optimum = distance.optimum()
    weights = prune(optimum.weights)
    fit, gradient = distance(weights)
    by_id = {c.id: float(w) for c, w in zip(problem.pool, weights, strict=True) if w > 0}
    evidence = {
        "weights": by_id,
        "fit": fit,
        "fit_optimum": optimum.value,
        "kkt_residual": optimum.gap,
        "kkt_residual_delivered": gap_at(weights, gradient),
        "steps": optimum.steps,
    }
    return Fusion(combine("mixture", by_id), evidence)
