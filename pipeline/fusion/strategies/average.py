"""The plain mean of the members' pixels for shared latents; the literal form of averaging models, measured to lose."""

from pipeline.fusion.strategies._base import Fusion, Problem, combine, register, uniform_weights


@register("average")
def average(problem: Problem) -> Fusion:
    weights = uniform_weights(problem.best_of_each_member())
    return Fusion(combine("average", weights), {"weights": weights})
