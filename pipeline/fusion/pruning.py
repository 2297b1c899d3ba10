"""Pruning: candidates whose marginal gain to the best mixture is within the noise of real and of generated images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.frechet import Matrix, Vector, Views
from pipeline.evaluation.intervals import error_of
from pipeline.evaluation.ruler import Real
from pipeline.fusion.mixture import MeanDistance, mixed
from pipeline.fusion.simplex import minimise
from pipeline.fusion.strategies._base import Candidate
from pipeline.fusion.tilt import potential

PRECISION = 1e-6  # to which the mixtures' weights are found; distances are relative, so below 1
SILENT = 1e-3  # weights below this draw less than one image in a thousand


@dataclass(frozen=True)
class Gain:
    """How much farther away the best mixture is without a part, and the standard error of that; 0 for a silent part."""

    size: float
    noise: float


@dataclass(frozen=True)
class Measured:
    """A mixture's distance, and its derivative by the weight of each real image (M) and of each part's images (N)."""

    distance: float
    real: Vector
    generated: dict[int, Vector]


def prune(parts: Sequence[Candidate], real: Real, often: float, always: int) -> tuple[list[int], dict[int, Gain]]:
    """Drop parts one by one until each that is left gains more than `often` standard errors.

    always: the part that stays in any case. Returns the parts that stay, and each one's gain beside those that were
    left when it was looked at last.

    The one to go is that whose gain falls shortest of the noise, and the others' gains are then measured anew: of two
    parts that can replace each other neither gains anything beside the other, yet one is needed. Parts without weight
    go together, as the optimum stays where it is without them.
    """
    left, gains = list(range(len(parts))), dict[int, Gain]()
    while len(left) > 1:
        weights = best_weights(parts, left, real.views)
        if silent := [i for i in left if weights[i] < SILENT and i != always]:
            gains |= dict.fromkeys(silent, Gain(0.0, 0.0))
            left = [i for i in left if i not in silent]
            continue
        gains |= marginal(parts, left, weights, always, real)
        least = min((i for i in left if i != always), key=lambda i: gains[i].size - often * gains[i].noise)
        if gains[least].size > max(often * gains[least].noise, PRECISION):
            break
        left.remove(least)
    return left, gains


def best_weights(parts: Sequence[Candidate], left: Sequence[int], real: Views) -> Vector:
    """Return the weights of the nearest mixture of the parts that are left, 0 for the others."""
    weights = np.zeros(len(parts))
    distance = MeanDistance.of([parts[i].views for i in left], real, unbiased=True)
    weights[list(left)] = minimise(distance, len(left), tolerance=PRECISION).weights
    return weights


def marginal(
    parts: Sequence[Candidate], left: Sequence[int], weights: Vector, always: int, real: Real
) -> dict[int, Gain]:
    """Return the gain of each part that is left but `always`.

    weights: of the best mixture of all that are left. Weights count as fixed: at an optimum the distance changes with
    the images alone, to first order.
    """
    features = {i: parts[i].read() for i in left}
    whole, found = measured(parts, weights, real, features), {}
    for i in left:
        if i != always:
            without = measured(parts, best_weights(parts, [j for j in left if j != i], real.views), real, features)
            found[i] = Gain(without.distance - whole.distance, noise(without, whole))
    return found


def measured(
    parts: Sequence[Candidate], weights: Vector, real: Real, features: Mapping[int, Sequence[Matrix]]
) -> Measured:
    """Return the distance of a mixture and how it depends on each image.

    features: of the samples of each part with a weight, by its place. By an image's weight the distance changes as its
    quadratic form says, `pipeline.fusion.tilt.potential`, and by that of a real image as the one with the sides
    exchanged.
    """
    held = np.flatnonzero(weights).tolist()
    views = mixed([part.views for part in parts], weights)
    form = potential(views, real.views)
    generated = {i: weights[i] * form(seen) for i, seen in features.items()}
    distance = MeanDistance.of([parts[i].views for i in held], real.views, unbiased=True).value(weights[held])
    return Measured(distance, potential(real.views, views)(real.features), generated)


def noise(one: Measured, other: Measured) -> float:
    """Return the standard error of the difference of two mixtures' distances, whose images are the same ones."""
    drawn = [one.generated[i] - other.generated[i] for i in one.generated]
    return math.hypot(error_of(one.real - other.real), *map(error_of, drawn))
