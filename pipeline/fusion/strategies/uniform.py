"""Every member equally often, each by its nearest snapshot."""

import numpy as np

from pipeline.fusion.mixture import MeanDistance
from pipeline.fusion.strategies._base import Fusion, Problem, combine, register, uniform_weights


@register("uniform")
def uniform(problem: Problem) -> Fusion:
    members = problem.best_of_each_member()
    weights = uniform_weights(members)
    distance = MeanDistance.of([c.views for c in members], problem.real.views, unbiased=True)
    fit = distance.value(np.array(list(weights.values())))
    return Fusion(combine("mixture", weights), {"weights": weights, "fit": fit})
