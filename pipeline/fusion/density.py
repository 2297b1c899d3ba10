"""A density ratio, real over what a sampler draws, fitted on fresh images of it.

The ratio is the convex tilt of `pipeline.fusion.tilt`. It looks at images with more than what decides
(`pipeline.fusion.sights`), so that what it gains is no weakness of single extractors.

How strong the tilt is follows from cross-fitting: each third of the real and of the generated images tests what the
other two fitted. A single third says too little: what it makes of the pixels of 1,200 images is mostly noise. The bound
by which images are rejected is told by generated images that took no part in the fit; the other half of `val`, with
fresh images, chooses between strategies.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.frechet import Matrix, Vector, distance
from pipeline.evaluation.ruler import Real, Ruler
from pipeline.fusion.folds import leave_one_out
from pipeline.fusion.kinds import Loader, build_sampler
from pipeline.fusion.sights import Sight, Whole, see, sights_of
from pipeline.fusion.strategies._base import Fusion, Material, NotApplicableError, Problem
from pipeline.fusion.tilt import Form, bound, fit_tilt, weighted_views
from pipeline.randomness import derive_seed

FOLDS = 3
STRENGTHS = (1.0, 0.3, 0.1, 0.03)  # of the tilt, in units of the mixture's distance
RUNS_OUT = 1e-3  # share of images at most that are not accepted in as many tries as are allowed
DRAWS = 4  # half of them to fit on, the others for the bound, in units of those that a candidate is measured by


@dataclass(frozen=True)
class Part:
    """Generated images: features N×d for each ruler, and how often the mixture draws each of them."""

    features: tuple[Matrix, ...]
    base: Vector

    def take(self, rows: NDArray[np.int64]) -> "Part":
        return Part(tuple(x[rows] for x in self.features), self.base[rows] / self.base[rows].sum())


@dataclass(frozen=True)
class Seen:
    """What a ratio is fitted on: real and generated images as the rulers see them.

    names: of the sights, or of the extractors where features alone are known and sights are empty.
    """

    names: tuple[str, ...]
    rulers: tuple[Ruler, ...]
    real: Real
    generated: Part
    sights: tuple[Sight | Whole, ...] = ()


@dataclass(frozen=True)
class Density:
    """The logarithm of a ratio, form(features) + bias: of the probability to keep an image, where below 0.

    acceptance: the share of images that is kept. evidence: how strong the tilt is, and what it gains on images that
    took no part in its fit.
    """

    seen: Seen
    form: Form
    bias: float
    acceptance: float
    evidence: dict[str, float]


def fit_density(problem: Problem, source: Fusion, name: str) -> Density:
    """Return the ratio of real images to those of `source`; name: of the strategy that asks, for the random numbers.

    Raises `NotApplicableError` where some ruler gains nothing.
    """
    seen = _seen(problem, problem.material, source, name) if problem.material else _stored(problem, source)
    least, order = problem.settings.min_acceptance, np.random.default_rng(problem.seed)
    halves = np.array_split(order.permutation(len(seen.generated.base)), 2)
    generated, fresh = map(seen.generated.take, halves)
    strength, evidence = _strength(_folds(generated, seen.real, order), least)
    form = _fitted(generated, seen.real, strength, least)
    return Density(seen, form, *bias_of(form(fresh.features), fresh.base, least), evidence)


def tries_for(acceptance: float) -> int:
    """Return how many tries an image has, so that hardly any runs out of them."""
    return 1 if acceptance >= 1 else math.ceil(math.log(RUNS_OUT) / math.log1p(-acceptance))


def _seen(problem: Problem, material: Material, source: Fusion, name: str) -> Seen:
    """Draw fresh images of the source and look at them, and at the real ones to fit on, with all that there is."""
    count = DRAWS * len(problem.pool[0].read()[0])

    def look(problem: Problem) -> tuple[tuple[Sight | Whole, ...], Real]:
        sights = tuple(sights_of(problem, material, count))
        return sights, Real(see(sights, [material.fit()[0]]))

    sights, real = problem.once("sights", look)
    sampler = build_sampler(source.recipe, Loader(material.generator, material.discriminator), material.device)
    drawn = see(sights, sampler.sample(count, seed=derive_seed(problem.seed, name, "draws")))
    return Seen(
        tuple(sight.name for sight in sights),
        tuple(ruler for sight in sights for ruler in sight.rulers),
        real,
        Part(drawn, np.full(count, 1 / count)),
        sights,
    )


def _stored(problem: Problem, source: Fusion) -> Seen:
    """Take the features of the samples that the source's candidates are measured by: there are no images."""
    weights = source.evidence["weights"]
    chosen = [candidate for candidate in problem.pool if candidate.id in weights]
    read = [candidate.read() for candidate in chosen]
    base = np.concatenate(
        [np.full(len(views[0]), weights[c.id] / len(views[0])) for c, views in zip(chosen, read, strict=True)]
    )
    generated = Part(tuple(np.concatenate(views) for views in zip(*read, strict=True)), base)
    names = tuple(ruler.extractor for ruler in problem.rulers)
    return Seen(names, problem.rulers, problem.real, generated)


@dataclass(frozen=True)
class Fold:
    """Generated and real images to fit on, and others to check with."""

    fit: Part
    check: Part
    fit_real: Real
    check_real: Real


def _folds(generated: Part, real: Real, order: np.random.Generator) -> list[Fold]:
    """Return `FOLDS` of them, whose images to check with are disjoint."""
    counts = (len(generated.base), len(real.features[0]))
    if min(counts) < 2 * FOLDS:
        raise NotApplicableError(f"{min(counts)} images are too few to fit on some and to check with others")
    parts = [np.array_split(order.permutation(count), FOLDS) for count in counts]
    return [
        Fold(generated.take(fit), generated.take(check), *map(real.take, real_rows))
        for (fit, check), real_rows in zip(*map(leave_one_out, parts), strict=True)
    ]


def _fitted(fit: Part, real: Real, strength: float, least: float) -> Form:
    """Return the tilt of a strength that is in units of these images' distance.

    Raises `NotApplicableError` where there is no distance to bring down, or where it is no number.
    """
    scale = float(np.mean(_distances(fit.features, fit.base, real)))
    if not 0 < scale < math.inf:
        raise NotApplicableError(f"the distance of the images to fit on is {scale:g}: there is nothing to tilt")
    return fit_tilt(fit.features, fit.base, real.views, strength * scale, least)


def _strength(folds: Sequence[Fold], least: float) -> tuple[float, dict[str, float]]:
    """Return the strength that leaves the least distance on images that took no part in the fits, and the evidence.

    least: share of images that has to be accepted. Raises `NotApplicableError` where at no strength every ruler gains.
    """
    before = np.mean([_distances(fold.check.features, fold.check.base, fold.check_real) for fold in folds], axis=0)
    found = {}
    for strength in STRENGTHS:
        after = np.mean([_tilted(fold, strength, least) for fold in folds], axis=0)
        if (after < before).all():
            found[strength] = float(after.mean())
    if not found:
        raise NotApplicableError("on images that it was not fitted on, not every extractor finds its images nearer")
    best = min(found, key=lambda strength: found[strength])
    evidence = {"strength": best, "calibrated": found[best], "calibrated_mixture": float(before.mean())}
    return best, evidence


def _tilted(fold: Fold, strength: float, least: float) -> list[float]:
    """Return how far each ruler finds a fold's images to check with, once they are rejected by what the others fit."""
    scores = _fitted(fold.fit, fold.fit_real, strength, least)(fold.check.features)
    bias, _ = bias_of(scores, fold.check.base, least)
    return _distances(fold.check.features, fold.check.base * np.exp(np.minimum(scores + bias, 0)), fold.check_real)


def _distances(features: Sequence[Matrix], weights: Vector, real: Real) -> list[float]:
    """Return the distance of weighted images as each ruler sees it."""
    return [distance(*pair) for pair in zip(weighted_views(features, weights), real.views, strict=True)]


def bias_of(scores: Vector, base: Vector, least: float) -> tuple[float, float]:
    """Return what to add to log ratios so that images are accepted often enough, and the share that then is.

    Above `least` by two standard errors of the images that it is measured on, so that fresh ones do not fall below it.
    """
    kept = np.exp(np.minimum(scores - bound(scores, base, least), 0))
    error = math.sqrt(float(base**2 @ (kept - least) ** 2))
    # Beyond the largest ratio a higher bound would only reject more, of all images alike.
    bias = -min(bound(scores, base, min(least + 2 * error, 1.0)), float(scores.max()))
    return bias, float(base @ np.exp(np.minimum(scores + bias, 0)))
