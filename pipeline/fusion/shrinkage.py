"""Shrinkage of fitted weights towards equal ones: few real images say little about many weights.

How far is found by cross-fitting, w_λ = (1−λ) w* + λ u: weights fitted to one half of the real images are measured on
the other. Halves, as a Fréchet distance of a tenth of few images is bias alone, and several divisions. Simulated with
twelve candidates and 50, 100 and 200 images, the smallest held-out mean came out nearer than that of five folds, and
from 100 images on nearer than the one-standard-error rule, which gives up too much.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from pipeline.evaluation.frechet import Vector
from pipeline.fusion.folds import Rows, folds
from pipeline.fusion.simplex import minimise

DIVISIONS = 4
SHARES = np.linspace(0, 1, 11)
PRECISION = 1e-5  # to which the halves' weights are found: far below what they differ by


class Convex(Protocol):
    """A distance as a convex function of the weights: returns its value and its gradient, or the value alone."""

    def __call__(self, weights: Vector) -> tuple[float, Vector]: ...

    def value(self, weights: Vector) -> float: ...


Distance = TypeVar("Distance", bound=Convex)


@dataclass(frozen=True)
class Shrinkage:
    """What cross-fitting found.

    share: λ. weights: what is delivered. held_out: the distance, on images that took no part, of weights shrunk by λ.
    optimism: how much farther away weights without shrinkage are on such images than on those that they were fitted
    to. Both are means over fits to half of the images; None where there are too few to divide, and λ is 1 then.
    """

    share: float
    weights: Vector
    held_out: float | None
    optimism: float | None


def divisions(images: int, seed: int) -> list[tuple[Rows, Rows]]:
    """Return the halves of the images, to fit and to test, of `DIVISIONS` random divisions, each of them both ways."""
    return [halves for i in range(DIVISIONS) for halves in folds(images, 2, seed + i)]


def centre(distance: Convex, members: Sequence[str]) -> Vector:
    """Return equal weights of the members, each on its nearest candidate; members: of each candidate, whose it is."""
    corners, weights = np.eye(len(members)), np.zeros(len(members))
    for member in set(members):
        own = [i for i, other in enumerate(members) if other == member]
        weights[min(own, key=lambda i: distance.value(corners[i])) if len(own) > 1 else own[0]] = 1
    return weights / weights.sum()


def shrunk(
    optimum: Vector,
    whole: Distance,
    halves: Sequence[tuple[Distance, Distance]],
    members: Sequence[str],
    measure: Callable[[Distance, Vector], float],
) -> Shrinkage:
    """Shrink the weights `optimum` of the distance `whole` as far as held-out images justify.

    halves: pairs of distances from disjoint real images, the first to fit and the second to test. measure: value of a
    distance that is reported, at some weights; it may be less biased than what is minimised.
    """
    towards = centre(whole, members)
    if not halves:
        return Shrinkage(1.0, towards, None, None)
    ends = [
        (minimise(fit, len(members), start=optimum, tolerance=PRECISION).weights, centre(fit, members))
        for fit, _ in halves
    ]

    def held_out(share: float) -> Vector:
        shrunken = ((1 - share) * own + share * equal for own, equal in ends)
        return np.array([measure(test, weights) for (_, test), weights in zip(halves, shrunken, strict=True)])

    tested = held_out(0.0)
    optimism = tested - [measure(fit, own) for (fit, _), (own, _) in zip(halves, ends, strict=True)]
    share, nearest = 0.0, float(tested.mean())
    # Along a line a convex distance falls, if at all, and then rises. Of equal means the least shrunk.
    for further in SHARES[1:]:
        if (mean := float(held_out(further).mean())) >= nearest - 1e-12:
            break
        share, nearest = float(further), mean
    return Shrinkage(share, (1 - share) * optimum + share * towards, nearest, float(optimism.mean()))
