"""The mixture of all candidates with the smallest Fréchet distance, a convex problem, shrunk towards equal weights."""

from pipeline.fusion.mixture import MeanDistance
from pipeline.fusion.shrinkage import divisions, shrunk
from pipeline.fusion.simplex import gap_at, prune
from pipeline.fusion.strategies._base import Fusion, Problem, combine, register


@register("weighted")
def weighted(problem: Problem) -> Fusion:
    """Certify the optimum by its gap; few real images shrink the weights, thousands leave them as they are."""
    return problem.once("weighted", fitted)


def fitted(problem: Problem) -> Fusion:
    """Fit it anew; other strategies start from it, too."""
    parts, real = [candidate.views for candidate in problem.pool], problem.real
    distance = MeanDistance.of(parts, real.views, unbiased=True)
    optimum = distance.optimum()
    sides = [distance.against(real.take(outside).views) for _, outside in divisions(len(real), problem.seed)]
    # Each division comes both ways, one after the other.
    halves = [(sides[place ^ 1], side) for place, side in enumerate(sides)]
    members = [candidate.member for candidate in problem.pool]
    shrinkage = shrunk(prune(optimum.weights), distance, halves, members, MeanDistance.value)
    fit, gradient = distance(shrinkage.weights)
    by_id = {c.id: float(w) for c, w in zip(problem.pool, shrinkage.weights, strict=True) if w > 0}
    evidence = {
        "weights": by_id,
        "fit": fit,
        "fit_optimum": optimum.value,
        "kkt_residual": optimum.gap,
        "kkt_residual_delivered": gap_at(shrinkage.weights, gradient),
        "steps": optimum.steps,
        "shrinkage": shrinkage.share,
        "cross_fitted": shrinkage.held_out,
        "optimism": shrinkage.optimism,
    }
    return Fusion(combine("mixture", by_id), evidence)
