"""Stacking's holdout form: the combiner is trained on real images that no member was trained on.

The holdout is the whole part of `val` that strategies are fitted on. The members' snapshots were ranked on it, but
nothing was trained on it; the choice between strategies is taken on the other part. It is much smaller than `train`,
which is what the combiner pays for images that are new to the members.
"""

from pipeline.fusion.combining import stack
from pipeline.fusion.strategies._base import Fusion, Problem, register


@register("blending")
def blending(problem: Problem) -> Fusion:
    return stack(problem, "blending", "fit")
