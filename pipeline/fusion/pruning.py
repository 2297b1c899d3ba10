"""Pruning: candidates whose marginal gain to the best mixture is within the noise of the real images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.frechet import Vector, Views, mean_distance
from pipeline.evaluation.ruler import Real
from pipeline.fusion.folds import folds
from pipeline.fusion.mixture import MeanDistance, mixed
from pipeline.fusion.simplex import minimise

PRECISION = 1e-6  # to which the mixtures' weights are found; distances are relative, so below 1
SILENT = 1e-3  # weights below this draw less than one image in a thousand
BLOCKS = 20  # of the jackknife


@dataclass(frozen=True)
class Gain:
    """How much farther away the best mixture is without a part, and the standard error of that; 0 for a silent part."""

    size: float
    noise: float


def prune(
    parts: Sequence[Views], real: Real, often: float, always: int, seed: int
) -> tuple[list[int], dict[int, Gain]]:
    """Drop parts one by one until each that is left gains more than `often` standard errors.

    parts: what the rulers see of them. always: the part that stays in any case. Returns the parts that stay, and each
    one's gain beside those that were left when it was looked at last.

    The one to go is that whose gain falls shortest of the noise, and the others' gains are then measured anew: of two
    parts that can replace each other neither gains anything beside the other, yet one is needed. Parts without weight
    go together, as the optimum stays where it is without them.
    """
    blocks = [real.take(rest).views for rest, _ in folds(len(real.features[0]), BLOCKS, seed)]
    left, gains = list(range(len(parts))), dict[int, Gain]()
    while len(left) > 1:
        weights = best_weights(parts, left, real.views)
        if silent := [i for i in left if weights[i] < SILENT and i != always]:
            gains |= dict.fromkeys(silent, Gain(0.0, 0.0))
            left = [i for i in left if i not in silent]
            continue
        gains |= marginal(parts, left, weights, always, [real.views, *blocks])
        least = min((i for i in left if i != always), key=lambda i: gains[i].size - often * gains[i].noise)
        if gains[least].size > max(often * gains[least].noise, PRECISION):
            break
        left.remove(least)
    return left, gains


def best_weights(parts: Sequence[Views], left: Sequence[int], real: Views) -> Vector:
    """Return the weights of the nearest mixture of the parts that are left, 0 for the others."""
    weights = np.zeros(len(parts))
    distance = MeanDistance.of([parts[i] for i in left], real)
    weights[list(left)] = minimise(distance, len(left), tolerance=PRECISION).weights
    return weights


def marginal(
    parts: Sequence[Views], left: Sequence[int], weights: Vector, always: int, reals: Sequence[Views]
) -> dict[int, Gain]:
    """Return the gain of each part that is left but `always`.

    weights: of the best mixture of all that are left. reals: the real images, then the same without one block each.
    Mixtures keep their weights when a block is left out: at an optimum the distance changes with the images alone, to
    first order.
    """

    def distances(of: Vector) -> Vector:
        views = mixed(parts, of)
        return np.array([mean_distance(views, real) for real in reals])

    whole, found = distances(weights), {}
    for i in left:
        if i != always:
            without = best_weights(parts, [j for j in left if j != i], reals[0])
            gain = distances(without) - whole
            found[i] = Gain(float(gain[0]), jackknife_error(gain[1:]))
    return found


def jackknife_error(estimates: Vector) -> float:
    """Return the standard error of an estimate, from its values with one of B blocks of the data left out each.

    √((B−1)/B Σ(θᵢ−θ̄)²), Efron and Stein 1981, equation 1.4 with blocks for single observations. Infinite for fewer
    than two blocks, which tell nothing.
    """
    count = len(estimates)
    if count < 2:
        return float("inf")
    return float(np.sqrt((count - 1) * np.mean((estimates - estimates.mean()) ** 2)))
