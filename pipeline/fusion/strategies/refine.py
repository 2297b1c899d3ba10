"""The optimised mixture with each image's latent refined by the members' discriminators, averaged as one critic.

Discriminator-driven latent sampling (Che et al. 2020). It costs many passes an image, and it leans on what the theory
needs and these discriminators are not: the density ratio of real images to those of the very generator that is refined.
"""

from pipeline.fusion.judging import fit_readings
from pipeline.fusion.strategies._base import Fusion, Problem, register, strategy


@register("refine")
def refine(problem: Problem) -> Fusion:
    readings, mixture = fit_readings(problem), strategy("weighted")(problem)
    settings = problem.settings
    recipe = {
        **mixture.recipe,
        "kind": "refine",
        "critics": list(readings),
        "readings": [{"slope": reading.slope, "intercept": reading.intercept} for reading in readings.values()],
        "steps": settings.refine_steps,
        "step_size": settings.refine_step_size,
    }
    evidence = {"weights": mixture.evidence["weights"], "critics": list(readings)}
    return Fusion(recipe, evidence)
