"""The single candidate that is nearest to the real images: what every fusion has to beat."""

from pipeline.fusion.strategies._base import Fusion, Problem, register


@register("best")
def best(problem: Problem) -> Fusion:
    chosen = problem.ranked()[0]
    evidence = {"weights": {chosen.id: 1.0}, "fit": problem.distances[chosen.id]}
    return Fusion({"kind": "candidate", "id": chosen.id}, evidence)
