"""Every member equally often, each by its nearest snapshot."""

from pipeline.fusion.strategies._base import Fusion, Problem, combine, register, uniform_weights


@register("uniform")
def uniform(problem: Problem) -> Fusion:
    weights = uniform_weights(problem.best_of_each_member())
    return Fusion(combine("mixture", weights), {"weights": weights})
