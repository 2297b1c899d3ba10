"""The mean of the members' pixels for shared latents, the nearer members counting more."""

from pipeline.fusion.strategies._base import Fusion, Problem, combine, register


@register("average_weighted")
def average_weighted(problem: Problem) -> Fusion:
    members = problem.best_of_each_member()
    # Reciprocal distances: a member twice as near counts twice.
    raw = {c.id: 1 / max(problem.distances[c.id], 1e-9) for c in members}
    total = sum(raw.values())
    weights = {name: value / total for name, value in raw.items()}
    return Fusion(combine("average", weights), {"weights": weights})
