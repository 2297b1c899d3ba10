"""The weighted mixture, with its images kept by a density ratio on the features of all selection extractors.

The ratio is the convex tilt of `pipeline.fusion.tilt`. Beside the extractors that decide it looks at the principal
components of the pixels, which cost hardly anything, have learnt no labels and see what networks have learnt to
overlook; unless these are a judge, for what a judge sees nothing may be fitted on.

How strong the tilt is follows from cross-fitting: each third of the real and of the generated images tests what the
other two fitted. A single third says too little: what it makes of the pixels of 1,200 images is mostly noise. The bound
by which images are rejected is told by generated images that took no part in the fit; the other half of `val`, with
fresh images, chooses between strategies.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.evaluation import own
from pipeline.evaluation.frechet import Matrix, Vector, distance
from pipeline.evaluation.networks import to_float
from pipeline.evaluation.ruler import Real, Ruler, choose_dims, fit_ruler
from pipeline.fusion.ratio import Ratio
from pipeline.fusion.strategies._base import Companion, Fusion, NotApplicableError, Problem, register, strategy
from pipeline.fusion.tilt import Form, bound, fit_tilt, weighted_views
from pipeline.randomness import derive_seed

NAME = "ratio"
PIXELS = "pixels"
FOLDS = 3
STRENGTHS = (1.0, 0.3, 0.1, 0.03)  # of the tilt, in units of the mixture's distance
RUNS_OUT = 1e-3  # share of images at most that are not accepted in as many tries as are allowed
PIXELS_KIMG = 20  # thousand training images that the principal components are of, at most
STEP = 500


@dataclass(frozen=True)
class Part:
    """Generated images: features N×d for each ruler, and how often the mixture draws each of them."""

    features: tuple[Matrix, ...]
    base: Vector

    def take(self, rows: NDArray[np.int64]) -> "Part":
        return Part(tuple(x[rows] for x in self.features), self.base[rows] / self.base[rows].sum())


@register(NAME)
def ratio(problem: Problem) -> Fusion:
    """Raises `NotApplicableError` for extractors that are not ours to pack, and where some ruler gains nothing."""
    foreign = [ruler.extractor for ruler in problem.rulers if ruler.extractor not in own.OWN]
    if foreign or not problem.rulers:
        raise NotApplicableError(f"it would have to pack {', '.join(foreign) or 'extractors'}, which is not ours")
    mixed = strategy("weighted")(problem)
    weights: dict[str, float] = mixed.evidence["weights"]
    generated = Part(*_read(problem, weights))
    rulers, real, companions = list(problem.rulers), problem.real, {}
    if pixels := _pixels(problem, list(weights)):
        rulers.append(pixels.ruler)
        real = Real((*real.features, pixels.real), real.labels)
        generated = Part((*generated.features, pixels.generated), generated.base)
        companions[f"extractors/{PIXELS}"] = pixels.companion
    folds, least = _folds(generated, real, problem.seed), problem.settings.min_acceptance
    strength, evidence = _strength(folds, least)
    form = _fitted(folds[0].fit, real, strength, least)
    bias, evidence["acceptance"] = _bias(form(folds[0].check.features), folds[0].check.base, least)
    made = assemble(rulers, form, bias)
    companions[f"ratios/{NAME}"] = Companion(made.config, made)
    acceptance = evidence["acceptance"]
    recipe = {
        "kind": "rejection",
        "source": mixed.recipe,
        "companions": {"ratio": f"ratios/{NAME}", **{r.extractor: f"extractors/{r.extractor}" for r in rulers}},
        "tries": 1 if acceptance >= 1 else math.ceil(math.log(RUNS_OUT) / math.log1p(-acceptance)),
        "acceptance": acceptance,
    }
    return Fusion(recipe, {"weights": weights, **evidence}, companions)


def _read(problem: Problem, weights: dict[str, float]) -> tuple[tuple[Matrix, ...], Vector]:
    """Return the features of the mixture's candidates' samples, and how often the mixture draws each."""
    read = [candidate.read() for candidate in problem.pool if candidate.id in weights]
    shares = [weights[candidate.id] for candidate in problem.pool if candidate.id in weights]
    base = np.concatenate([np.full(len(f[0]), w / len(f[0])) for f, w in zip(read, shares, strict=True)])
    return tuple(np.concatenate(views) for views in zip(*read, strict=True)), base


@dataclass(frozen=True)
class Pixels:
    """The principal components of the pixels: their ruler, what it sees, and their network as a companion."""

    ruler: Ruler
    real: Matrix
    generated: Matrix
    companion: Companion


def _pixels(problem: Problem, ids: Sequence[str]) -> Pixels | None:
    """Fit them on the training images; None where they judge, or decide already, or there are features alone."""
    material = problem.material
    if material is None or PIXELS in (*material.judges, *(ruler.extractor for ruler in problem.rulers)):
        return None
    seed, images = derive_seed(problem.seed, NAME), material.train()[0]
    train = images[own.rows_to_learn_from(len(images), PIXELS_KIMG, seed)].to(material.device)
    config, network = own.learn(PIXELS, train, None, 0, kimg=PIXELS_KIMG, seed=seed)

    def features(images: torch.Tensor) -> Matrix:
        with torch.inference_mode():
            parts = [network(to_float(part.to(material.device)))[0].cpu() for part in images.split(STEP)]
        return torch.cat(parts).numpy()

    drawn = torch.cat([material.samples(c.id) for c in problem.pool if c.id in ids])
    # Few where there are few images, as for every ruler.
    dims = choose_dims("auto", config.features, min(len(problem.real), len(drawn)))
    ruler = fit_ruler(PIXELS, features(train), dims)
    seen = ruler.relative(features(material.fit()[0])), ruler.relative(features(drawn))
    return Pixels(ruler, *seen, Companion(config.to_json(), network.cpu()))


@dataclass(frozen=True)
class Fold:
    """Generated and real images to fit on, and others to check with."""

    fit: Part
    check: Part
    fit_real: Real
    check_real: Real


def _folds(generated: Part, real: Real, seed: int) -> list[Fold]:
    """Return `FOLDS` of them, whose images to check with are disjoint."""
    order = np.random.default_rng(seed)
    counts = (len(generated.base), len(real.features[0]))
    if min(counts) < 2 * FOLDS:
        raise NotApplicableError(f"{min(counts)} images are too few to fit on some and to check with others")
    parts = [np.array_split(order.permutation(count), FOLDS) for count in counts]
    return [
        Fold(generated.take(fit), generated.take(check), *map(real.take, real_rows))
        for (fit, check), real_rows in zip(*map(_leave_one_out, parts), strict=True)
    ]


def _leave_one_out(parts: list[NDArray[np.int64]]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return for each part the rows of all others, and its own."""
    return [(np.concatenate(parts[:i] + parts[i + 1 :]), own) for i, own in enumerate(parts)]


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
    bias, _ = _bias(scores, fold.check.base, least)
    return _distances(fold.check.features, fold.check.base * np.exp(np.minimum(scores + bias, 0)), fold.check_real)


def _distances(features: Sequence[Matrix], weights: Vector, real: Real) -> list[float]:
    """Return the distance of weighted images as each ruler sees it."""
    return [distance(*pair) for pair in zip(weighted_views(features, weights), real.views, strict=True)]


def _bias(scores: Vector, base: Vector, least: float) -> tuple[float, float]:
    """Return what to add to log ratios so that images are accepted often enough, and the share that then is.

    Above `least` by two standard errors of the images that it is measured on, so that fresh ones do not fall below it.
    """
    kept = np.exp(np.minimum(scores - bound(scores, base, least), 0))
    error = math.sqrt(float(base**2 @ (kept - least) ** 2))
    # Beyond the largest ratio a higher bound would only reject more, of all images alike.
    bias = -min(bound(scores, base, min(least + 2 * error, 1.0)), float(scores.max()))
    return bias, float(base @ np.exp(np.minimum(scores + bias, 0)))


def assemble(rulers: Sequence[Ruler], form: Form, bias: float) -> Ratio:
    """Return the ratio of what the extractors put out, from a form of what their rulers make of it."""
    bases = [_map(ruler, len(slope)) for ruler, slope in zip(rulers, form.slopes, strict=True)]
    means = [
        np.zeros(len(basis)) if ruler.mean is None else ruler.mean for ruler, basis in zip(rulers, bases, strict=True)
    ]
    made = Ratio([ruler.extractor for ruler in rulers], sum(map(len, bases)), sum(map(len, form.slopes)))
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
