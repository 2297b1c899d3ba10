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
from pipeline.fusion.density import Density, bias_of, distances, fit_density, tries_for
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
CHECKED = 0.2  # of them, which only tell how sharply to reject
SHARPNESS = (0.5, 1.0, 2.0, 4.0, 8.0)  # of the ratio as it is told, which varies less than the ratio does
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
    """Raises `NotApplicableError` where some ruler gains nothing by the ratio, or by what latents tell of it."""
    material = problem.material
    if material is None:
        raise NotApplicableError("there are no generators whose latents could be rated")
    nearest = strategy("best")(problem)
    density = fit_density(problem, nearest, NAME)
    source = CandidateSampler(material.generator(nearest.recipe["id"]), material.device)
    rated = rate(density, source, DRAWS * len(problem.pool[0].read()[0]), derive_seed(problem.seed, NAME, "rated"))
    cut = round((1 - CHECKED) * len(rated.scores))
    rater = learn(rated, cut, derive_seed(problem.seed, NAME, "rater"), material)
    evidence = sharpen(rater, rated, cut, density, problem.settings.min_acceptance, material)
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


def sharpen(
    rater: Rater, rated: Rated, cut: int, density: Density, least: float, material: Material
) -> dict[str, float]:
    """Put into the rater how sharply it rejects, and the bound; return the evidence for it.

    Told by images from `cut` on, on which it was not trained. least: share of latents that has to be kept. Raises
    `NotApplicableError` where at no sharpness every ruler gains.
    """
    with torch.inference_mode():
        told = rater(rated.begun[cut:].to(material.device)).double().cpu().numpy()
    checked, true = tuple(values[cut:] for values in rated.features), rated.scores[cut:]
    base, spread = np.full(len(told), 1 / len(told)), float(rated.scores[:cut].std())
    before = distances(checked, base, density.seen.real)
    found: dict[float, tuple[float, float, float]] = {}
    for sharpness in SHARPNESS:
        scores = sharpness * spread * told
        bias, acceptance = bias_of(scores, base, least)
        after = distances(checked, base * np.exp(np.minimum(scores + bias, 0)), density.seen.real)
        if all(nearer < plain for nearer, plain in zip(after, before, strict=True)):
            found[sharpness] = float(np.mean(after)), bias, acceptance
    if not found:
        raise NotApplicableError("latents told too little: not every extractor finds the images of those kept nearer")
    best = min(found, key=lambda sharpness: found[sharpness][0])
    calibrated, bias, acceptance = found[best]
    with torch.no_grad():
        rater.head.weight.mul_(best * spread)
        rater.head.bias.mul_(best * spread).add_(bias)
    return {
        **density.evidence,
        "sharpness": best,
        "told": correlation(told, true),
        "calibrated": calibrated,
        "calibrated_mixture": float(np.mean(before)),
        "acceptance": acceptance,
    }


def correlation(told: Vector, true: Vector) -> float:
    """Return Spearman's rank correlation."""
    ranks = np.stack([values.argsort().argsort() for values in (told, true)]).astype(np.float64)
    return float(np.asarray(np.corrcoef(ranks))[0, 1])
