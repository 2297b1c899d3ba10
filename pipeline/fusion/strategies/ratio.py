"""The weighted mixture, with its images kept by a density ratio on all that `pipeline.fusion.sights` sees."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from pipeline.evaluation.frechet import Matrix
from pipeline.evaluation.ruler import Ruler
from pipeline.fusion.density import fit_density, tries_for
from pipeline.fusion.ratio import Ratio
from pipeline.fusion.sights import foreign
from pipeline.fusion.strategies._base import Companion, Fusion, NotApplicableError, Problem, register, strategy
from pipeline.fusion.tilt import Form

NAME = "ratio"


@register(NAME)
def ratio(problem: Problem) -> Fusion:
    """Raises `NotApplicableError` where `fit_density` does, and for extractors that are not ours to pack."""
    unknown = foreign(problem)
    if unknown or not problem.rulers:
        raise NotApplicableError(f"it would have to pack {', '.join(unknown) or 'extractors'}, which is not ours")
    mixed = strategy("weighted")(problem)
    density = fit_density(problem, mixed, NAME)
    seen = density.seen
    made = assemble(seen.names, seen.rulers, density.form, density.bias)
    # What is not among these is a copy of the reference's own extractor.
    own = {f"extractors/{sight.name}": sight.companion for sight in seen.sights if sight.companion}
    recipe = {
        "kind": "rejection",
        "source": mixed.recipe,
        "companions": {"ratio": f"ratios/{NAME}", **{name: f"extractors/{name}" for name in seen.names}},
        "tries": tries_for(density.acceptance),
        "acceptance": density.acceptance,
    }
    evidence = {"weights": mixed.evidence["weights"], **density.evidence, "acceptance": density.acceptance}
    return Fusion(recipe, evidence, {**own, f"ratios/{NAME}": Companion(made.config, made)})


def assemble(names: Sequence[str], rulers: Sequence[Ruler], form: Form, bias: float) -> Ratio:
    """Return the ratio of what the extractors `names` put out side by side, from a form of what rulers make of it."""
    bases = [_map(ruler, len(slope)) for ruler, slope in zip(rulers, form.slopes, strict=True)]
    means = [
        np.zeros(len(basis)) if ruler.mean is None else ruler.mean for ruler, basis in zip(rulers, bases, strict=True)
    ]
    made = Ratio(names, sum(map(len, bases)), sum(map(len, form.slopes)))
    parts = {
        "bias": torch.tensor(bias, dtype=torch.float64),
        "linear": torch.from_numpy(np.concatenate(form.slopes)),
        "centre": torch.from_numpy(np.concatenate(means)),
        "basis": torch.block_diag(*map(torch.from_numpy, bases)),
        "quadratic": torch.block_diag(*map(torch.from_numpy, form.curvatures)),
    }
    made.load_state_dict(parts)
    return made


def _map(ruler: Ruler, dims: int) -> Matrix:
    """Return a ruler's linear map, D×d, from centred features to relative ones."""
    basis: Matrix = (np.eye(dims) if ruler.basis is None else ruler.basis) / math.sqrt(ruler.spread)
    return basis
