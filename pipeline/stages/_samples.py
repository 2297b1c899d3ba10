"""The images that a candidate is measured by, and that it draws again where a strategy looks at them."""

import torch
from torch import Tensor

from pipeline.fusion.samplers import CandidateSampler, classes_of, draw
from pipeline.project import Project
from pipeline.randomness import derive_seed


def measured_images(project: Project, candidate: str, sampler: CandidateSampler) -> tuple[Tensor, Tensor | None]:
    """Return uint8 N×C×H×W and the classes asked for, N int64, those that it would draw by itself; None without any."""
    seed, count = derive_seed(project.params.seed, "evaluate", candidate), project.params.evaluation.samples
    asked = classes_of(torch.arange(count), sampler.shares, seed)
    return draw(sampler, count, seed=seed, labels=asked), asked
