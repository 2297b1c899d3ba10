"""Convex minimisation over mixture weights."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from pipeline.evaluation.frechet import Vector

FEW = 500  # weights up to which a quadratic programme costs less than the function: it takes their third power
FIRST_STEPS = 30  # of exponentiated gradient, where such a programme goes on from there
NEWTON_STEPS = 5
ROUNDING = 1e-9  # by which the sums of weights may be off
SPACING = 1e-5  # of weights whose gradients' difference is the curvature


@dataclass(frozen=True)
class Optimum:
    """Weights on the simplex and the proof of their quality.

    gap: the Frank-Wolfe gap w·g − min v·g ≥ 0 over all permitted v; for a convex function no weights are better by more
    than it (Jaggi 2013, section 2.2). It is zero exactly where the KKT conditions hold.
    """

    weights: Vector
    value: float
    gap: float
    steps: int

    def within(self, tolerance: float) -> bool:
        """Whether the gap is at most `tolerance` × max(1, |value|)."""
        return self.gap <= tolerance * max(1.0, abs(self.value))


@dataclass(frozen=True)
class Blocks:
    """A product of simplices: the weights of each block sum to the block's own share.

    block: N int64, the block of each weight; each in [0, B) holds at least one. shares: B, above 0, with a sum of 1.
    """

    block: NDArray[np.int64]
    shares: Vector

    @classmethod
    def one(cls, count: int) -> "Blocks":
        """Return the plain simplex of `count` weights."""
        return cls(np.zeros(count, dtype=np.int64), np.ones(1))

    def scaled(self, weights: Vector) -> Vector:
        """Return positive weights scaled to the shares of their blocks."""
        sums = np.bincount(self.block, weights, minlength=len(self.shares))
        return weights * (self.shares / sums)[self.block]

    def lowest(self, gradient: Vector) -> Vector:
        """Return the smallest entry of the gradient in each block."""
        smallest = np.full(len(self.shares), np.inf)
        np.minimum.at(smallest, self.block, gradient)
        return smallest


def minimise(
    function: Callable[[Vector], tuple[float, Vector]],
    blocks: Blocks | int,
    *,
    start: Vector | None = None,
    tolerance: float = 1e-7,
    max_steps: int = 200,
) -> Optimum:
    """Minimise a convex function of weights on a simplex, or on a product of them.

    function: maps weights to (value, gradient). blocks: the product; a number is that of weights on one simplex. start:
    where few weights begin, such as the optimum of a function that is much alike; equal ones otherwise. Stops when the
    gap is below `tolerance` × max(1, |value|).

    Few weights begin with sequential quadratic programming (Kraft 1988), which takes a fraction of a first-order
    method's steps. Where it does not arrive, as values are too steep at the start, exponentiated gradient comes first,
    which finds the neighbourhood from anywhere and copes with thousands of weights. Newton's method ends it, by
    gradients alone: near the optimum values differ by less than their rounding.
    """
    if isinstance(blocks, int):
        blocks = Blocks.one(blocks)
    few = len(blocks.block) <= FEW
    if few:
        found = _at(function, blocks, blocks.scaled(np.ones(len(blocks.block))) if start is None else start)
        if not found.within(tolerance):
            found = _quadratic_programming(function, blocks, found, tolerance)
        if found.within(tolerance):
            return found
    found = _exponentiated_gradient(function, blocks, tolerance, min(max_steps, FIRST_STEPS) if few else max_steps)
    if few and not found.within(tolerance):
        return _newton(function, blocks, _quadratic_programming(function, blocks, found, tolerance), tolerance)
    return found


def _at(function: Callable[[Vector], tuple[float, Vector]], blocks: Blocks, weights: Vector, steps: int = 0) -> Optimum:
    value, gradient = function(weights)
    return Optimum(weights, value, gap_at(weights, gradient, blocks), steps)


def _exponentiated_gradient(
    function: Callable[[Vector], tuple[float, Vector]], blocks: Blocks, tolerance: float, max_steps: int
) -> Optimum:
    """The step length grows while the value falls and is halved when it does not (Kivinen and Warmuth 1997)."""
    weights = blocks.scaled(np.ones(len(blocks.block)))
    value, gradient = function(weights)
    rate = 1 / max(float(np.ptp(gradient)), 1e-12)
    for step in range(max_steps):
        gap = gap_at(weights, gradient, blocks)
        if gap <= tolerance * max(1.0, abs(value)):
            return Optimum(weights, value, gap, step)
        while True:
            logits = np.log(np.maximum(weights, 1e-300)) - rate * gradient
            # Each block's largest exponent is 0: none overflows, and no block vanishes.
            trial = blocks.scaled(np.exp(logits + blocks.lowest(-logits)[blocks.block]))
            trial_value, trial_gradient = function(trial)
            # Armijo's rule for mirror descent: at least half of the decrease that the gradient promises.
            promised = float(gradient @ (weights - trial))
            better = trial_value <= value - 0.5 * promised
            # Below rounding there is nothing to be gained by shorter steps; values would go up and down for ever.
            if better or not promised > 1e-15 * max(1.0, abs(value)):
                break
            rate /= 2
        if not better:
            break
        weights, value, gradient = trial, trial_value, trial_gradient
        rate *= 1.5
    return Optimum(weights, value, gap_at(weights, gradient, blocks), step + 1)


class _Arrived(Exception):
    """Weights whose gap is small enough: the programme would go on until values no longer fall."""


def _quadratic_programming(
    function: Callable[[Vector], tuple[float, Vector]], blocks: Blocks, start: Optimum, tolerance: float
) -> Optimum:
    """Go on from `start`; what comes out is no worse."""
    sums = np.zeros((len(blocks.shares), len(blocks.block)))
    sums[blocks.block, np.arange(len(blocks.block))] = 1
    found, steps = start, 0

    def looked_at(weights: Vector) -> tuple[float, Vector]:
        nonlocal found, steps
        steps += 1
        # It keeps to the bounds and sums up to rounding.
        weights = np.maximum(weights, 0)
        value, gradient = function(weights)
        if value < found.value and abs(sums @ weights - blocks.shares).max() <= ROUNDING:
            found = Optimum(weights, value, gap_at(weights, gradient, blocks), start.steps + steps)
            if found.within(tolerance):
                raise _Arrived
        return value, gradient

    with suppress(_Arrived):
        optimize.minimize(
            looked_at,
            start.weights,
            jac=True,
            method="SLSQP",
            bounds=[(0, 1)] * len(blocks.block),
            constraints={"type": "eq", "fun": lambda weights: sums @ weights - blocks.shares, "jac": lambda _: sums},
            options={"ftol": 1e-14, "maxiter": 200},
        )
    return found


def _newton(
    function: Callable[[Vector], tuple[float, Vector]], blocks: Blocks, start: Optimum, tolerance: float
) -> Optimum:
    """Go on from `start` among the weights that it holds above zero, as long as the gap falls."""
    found = start
    for _ in range(NEWTON_STEPS):
        if found.within(tolerance):
            break
        held = np.flatnonzero(found.weights > SPACING)
        gradient = function(found.weights)[1]
        moved = found.weights + SPACING * np.eye(len(found.weights))[held]
        curvature = np.stack([(function(weights)[1] - gradient)[held] for weights in moved]) / SPACING
        sums = (blocks.block[held] == np.arange(len(blocks.shares))[:, None]).astype(np.float64)
        system = np.block([[(curvature + curvature.T) / 2, sums.T], [sums, np.zeros((len(sums), len(sums)))]])
        step = np.linalg.lstsq(system, np.concatenate([-gradient[held], np.zeros(len(sums))]))[0][: len(held)]
        weights = found.weights.copy()
        weights[held] = np.maximum(weights[held] + step, 0)
        if not np.isfinite(weights).all() or not (np.bincount(blocks.block, weights) > 0).all():
            break
        end = _at(function, blocks, blocks.scaled(weights), found.steps + 1)
        if end.gap >= found.gap:
            break
        found = end
    return found


def gap_at(weights: Vector, gradient: Vector, blocks: Blocks | None = None) -> float:
    """Return the Frank-Wolfe gap: w·g − min g on one simplex, w·g − Σ shareᵦ minᵦ g on a product of them."""
    lowest = gradient.min() if blocks is None else blocks.shares @ blocks.lowest(gradient)
    return float(weights @ gradient - lowest)


def prune(weights: Vector, below: float = 1e-3) -> Vector:
    """Set weights under `below` to zero and scale the rest to sum to 1, so that no silent part is carried.

    Where there are so many that hardly any reaches it, half of the largest weight takes its place.
    """
    kept = np.where(weights < min(below, weights.max() / 2), 0.0, weights)
    return kept / kept.sum()
