"""A second-level network over the members' images for shared latents, trained on the images that they were trained on.

Stacked generalisation (Wolpert 1992) in the literal form. For generators it has little to work on: their images for one
latent have nothing to do with each other, so the combiner can hardly do better than to correct one of them.
"""

from pipeline.fusion.combining import stack
from pipeline.fusion.strategies._base import Fusion, Problem, register


@register("stacking")
def stacking(problem: Problem) -> Fusion:
    return stack(problem, "stacking", "train")
