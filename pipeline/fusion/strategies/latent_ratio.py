"""The nearest candidate, its latents kept by a density ratio: `ratio` distilled into one network and one draw.

A ratio of images costs several draws of an image and a pass of all extractors for each. Whether an image will be kept
is a function of its latent, which a small network learns from images that the ratio has rated; it then rejects latents,
before anything is drawn (Issenhuth et al. 2022, "Latent reweighting, an almost free improvement for GANs", section 3,
where the ratio is a discriminator's).

One number an image teaches little. The network learns from what all rulers see of the image, too: the features vary
with the latent as the ratio does, and there are hundreds of them. In a trial as many images taught it twice as much.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.evaluation.frechet import Matrix, Vector
from pipeline.fusion.density import Density, bias_of, fit_density, tries_for
from pipeline.fusion.latent import images_from, starts
from pipeline.fusion.samplers import AT_ONCE, CandidateSampler, to_uint8
from pipeline.fusion.sights import see
from pipeline.fusion.strategies._base import (
    Companion,
    Fusion,
    Material,
    NotApplicableError,
    Problem,
    register,
    strategy,
)
from pipeline.layers.rater import Rater
from pipeline.randomness import derive_seed, generator

NAME = "latent_ratio"
DRAWS = 10  # that the network is made of, in units of those that a candidate is measured by
CHECKED = 0.2  # of them, which only tell the bound by which latents are rejected
WIDTH, EPOCHS, BATCH, LR, DECAY = 256, 15, 256, 2e-3, 0.1
FEATURES = 3.0  # what the features count for beside the ratio


@dataclass(frozen=True)
class Rated:
    """Where images begin, N×D float32, what all rulers see of them, and their log ratios N."""

    begun: Tensor
    features: tuple[Matrix, ...]
    scores: Vector


@register(NAME)
def latent_ratio(problem: Problem) -> Fusion:
    """Raises `NotApplicableError` where there are no generators, and where `fit_density` does."""
    material = problem.material
    if material is None:
        raise NotApplicableError("there are no generators whose latents could be rated")
    nearest = strategy("best")(problem)
    density = fit_density(problem, nearest, NAME)
    source = CandidateSampler(material.generator(nearest.recipe["id"]), material.device)
    rated = rate(density, source, DRAWS * len(problem.pool[0].read()[0]), derive_seed(problem.seed, NAME, "rated"))
    cut = round((1 - CHECKED) * len(rated.scores))
    rater = learn(rated, cut, derive_seed(problem.seed, NAME, "rater"), material)
    settled = settle(rater, rated, cut, problem.settings.min_acceptance, material.device)
    evidence = density.evidence | settled
    recipe = {
        "kind": "latents",
        "source": nearest.recipe,
        "companions": {"rater": f"raters/{NAME}"},
        "tries": tries_for(evidence["acceptance"]),
        "acceptance": evidence["acceptance"],
    }
    made = {"kind": "rater", "inputs": rated.begun.shape[1], "width": WIDTH}
    weights = nearest.evidence["weights"]
    return Fusion(recipe, {"weights": weights, **evidence}, {f"raters/{NAME}": Companion(made, rater)})


def rate(density: Density, source: CandidateSampler, count: int, seed: int) -> Rated:
    """Draw fresh images of a candidate and rate them."""
    begun = starts(source, torch.arange(count), seed)
    seen = see(density.seen.sights, (to_uint8(images_from(source, part)) for part in begun.split(AT_ONCE)))
    return Rated(begun, seen, density.form(seen) + density.bias)


def learn(rated: Rated, count: int, seed: int, material: Material) -> Rater:
    """Train a rater on the first `count` of these; what it puts out is in units of the ratio's deviation.

    The trunk is shared with a second head, which tells the features and is thrown away.
    """
    features = torch.from_numpy(np.concatenate(rated.features, 1)[:count]).float()
    scores = torch.from_numpy(rated.scores[:count] / rated.scores[:count].std()).float()
    features = features / features.std()
    device, inputs = material.device, rated.begun[:count]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        rater, telling = Rater(inputs.shape[1], WIDTH), nn.Linear(WIDTH, features.shape[1])
    rater, telling = rater.to(device), telling.to(device)
    parameters = [*rater.parameters(), *telling.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=LR, weight_decay=DECAY)
    batch = min(BATCH, count)
    course = torch.optim.lr_scheduler.OneCycleLR(optimiser, LR, total_steps=EPOCHS * (count // batch))
    order = generator(seed, "order")
    for epoch in range(EPOCHS):
        for rows in torch.randperm(count, generator=order)[: count // batch * batch].split(batch):
            seen = rater.trunk(inputs[rows].to(device))
            loss = (rater.head(seen)[:, 0] - scores[rows].to(device)).square().mean()
            loss = loss + FEATURES * (telling(seen) - features[rows].to(device)).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            course.step()
        if epoch * 4 // EPOCHS < (epoch + 1) * 4 // EPOCHS:
            material.say(f"{NAME:<18}{(epoch + 1) * count / 1000:.0f}/{EPOCHS * count / 1000:.0f} kimg")
    return rater.eval().requires_grad_(False)


def settle(rater: Rater, rated: Rated, cut: int, least: float, device: torch.device) -> dict[str, float]:
    """Turn what a rater puts out into log probabilities; return the share of latents that it keeps, and the evidence.

    Both are told by images from `cut` on, on which it was not trained. least: share of latents that has to be kept.
    """
    spread = float(rated.scores[:cut].std())
    with torch.inference_mode():
        scores = spread * rater(rated.begun[cut:].to(device)).double().cpu().numpy()
    bias, acceptance = bias_of(scores, np.full(len(scores), 1 / len(scores)), least)
    with torch.no_grad():
        rater.head.weight.mul_(spread)
        rater.head.bias.mul_(spread).add_(bias)
    return {"told": correlation(scores, rated.scores[cut:]), "acceptance": acceptance}


def correlation(told: Vector, true: Vector) -> float:
    """Return Spearman's rank correlation."""
    ranks = np.stack([values.argsort().argsort() for values in (told, true)]).astype(np.float64)
    return float(np.asarray(np.corrcoef(ranks))[0, 1])
