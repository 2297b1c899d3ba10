"""Fitting the fused critic: the members' discriminators, read on real images and on those of all members."""

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.evaluation.networks import to_float
from pipeline.fusion.critic import Logits, Reading, read_logits
from pipeline.fusion.samplers import BLOCK, CandidateSampler, MixtureSampler, draw
from pipeline.fusion.strategies._base import NotApplicableError, Problem
from pipeline.randomness import derive_seed

MOST = 4096  # images of each kind that discriminators are read on


def fit_readings(problem: Problem) -> dict[str, Reading]:
    """Return how the discriminator of each member's nearest snapshot is read, by the snapshot's id.

    Real images are those to fit on, generated ones as many of the uniform mixture of all members. Discriminators that
    put out what is no number are left out. Raises `NotApplicableError` where there is none.
    """
    return problem.once("readings", _fit)


def _fit(problem: Problem) -> dict[str, Reading]:
    names, material = problem.critics(), problem.material
    if material is None:
        raise NotApplicableError("there are no images to read the discriminators on")
    real = material.fit()[0][:MOST]
    generated = members_images(problem, len(real), "critic")
    readings = {}
    for name in names:
        critic = material.discriminator(name).to(material.device)
        logits = logits_of(critic, real), logits_of(critic, generated)
        if all(np.isfinite(some).all() for some in logits):
            readings[name] = read_logits(*logits)
    if not readings:
        raise NotApplicableError("no discriminator puts out numbers")
    return readings


def members_images(problem: Problem, n: int, purpose: str) -> Tensor:
    """Return `n` images of the uniform mixture of all members, uint8 n×C×H×W; others for each purpose."""
    material = problem.material
    assert material is not None
    names = [candidate.id for candidate in problem.best_of_each_member()]
    parts = [CandidateSampler(material.generator(name), material.device) for name in names]
    return draw(MixtureSampler(parts, [1 / len(parts)] * len(parts)), n, seed=derive_seed(problem.seed, purpose))


@torch.inference_mode()
def logits_of(critic: nn.Module, images: Tensor) -> Logits:
    """Return a discriminator's logits for uint8 N×C×H×W images of any class, float64."""
    device = next(critic.parameters()).device
    batches = (critic(to_float(batch.to(device))) for batch in images.split(BLOCK))
    return torch.cat([logits.double().cpu() for logits in batches]).numpy()
