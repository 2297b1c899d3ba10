"""Greedy forward selection with replacement (Caruana et al. 2004, "Ensemble selection from libraries of models")."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.frechet import Vector

TOLERANCE = 1e-7  # a longer path has to be nearer by more than this, else rounding would lengthen it


@dataclass(frozen=True)
class Path:
    """What was added, one after another, up to the best mixture on the way.

    picks: the part added at each step. value: of the mixture that they make. evaluations: of the function, in all.
    """

    picks: tuple[int, ...]
    value: float
    evaluations: int

    def weights(self, count: int) -> Vector:
        """Return how often each of `count` parts was added, as shares of all additions."""
        return np.bincount(self.picks, minlength=count) / len(self.picks)


def forward_selection(
    function: Callable[[Vector], tuple[float, Vector]],
    count: int,
    steps: int,
    value_of: Callable[[Vector], float],
    bend: Vector | float = 0.0,
) -> Path:
    """Add one of `count` parts at a time to a uniform bag, always the one that makes `function` smallest.

    function: maps weights w on the simplex to (value, gradient), and is convex but for a term −Σ bendᵢwᵢ². value_of:
    maps them to the value alone, which is all that an addition is compared by; the gradient is taken of what was added.
    A part can be added again, so the bag approaches any weights. Returns the shortest of the best bags on the path of
    `steps` additions; of equal parts the first is taken.

    Not every addition is evaluated, and the choice is exact all the same: a step s leads nowhere below the tangent by
    more than Σ bendᵢsᵢ², so an addition for which that is no lower than the best one found so far cannot be better.
    """
    corners = np.eye(count)
    evaluations = count
    first = int(np.argmin([value_of(corner) for corner in corners]))
    picks, (value, gradient) = [first], function(corners[first])
    values, bag = [value], corners[first]
    for size in range(2, steps + 1):
        tangents = value + (gradient - gradient @ bag) / size
        tangents = tangents - ((corners - bag) / size) ** 2 @ np.broadcast_to(bend, count)
        best = np.inf
        for part in promising(tangents):
            if tangents[part] >= best:
                break
            evaluations += 1
            trial = value_of(bag + (corners[part] - bag) / size)
            if trial < best:
                pick, best = int(part), trial
        bag = bag + (corners[pick] - bag) / size
        value, gradient = function(bag)
        picks.append(pick)
        values.append(value)
    length = int(np.argmax(np.array(values) <= min(values) + TOLERANCE)) + 1
    return Path(tuple(picks[:length]), values[length - 1], evaluations)


def promising(tangents: Vector) -> NDArray[np.intp]:
    """Return the parts in the order of their tangents, the lowest first; equal ones in their own order."""
    return np.argsort(tangents, kind="stable")
