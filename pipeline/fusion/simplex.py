"""Convex minimisation over mixture weights."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.frechet import Vector


@dataclass(frozen=True)
class Optimum:
    """Weights on the simplex and the proof of their quality.

    gap: the Frank-Wolfe gap w·g − min g ≥ 0; for a convex function no weights are better by more than it (Jaggi 2013,
    section 2.2). It is zero exactly where the KKT conditions hold.
    """

    weights: Vector
    value: float
    gap: float
    steps: int


def minimise(
    function: Callable[[Vector], tuple[float, Vector]],
    count: int,
    *,
    tolerance: float = 1e-7,
    max_steps: int = 5000,
) -> Optimum:
    """Minimise a convex function of `count` weights on the simplex by exponentiated gradient.

    function: maps weights to (value, gradient). The step length grows while the value falls and is halved when it does
    not (Kivinen and Warmuth 1997 with backtracking). Stops when the gap is below `tolerance` × max(1, |value|).
    """
    weights = np.full(count, 1 / count)
    value, gradient = function(weights)
    rate = 1 / max(float(np.ptp(gradient)), 1e-12)
    for step in range(max_steps):
        gap = gap_at(weights, gradient)
        if gap <= tolerance * max(1.0, abs(value)):
            return Optimum(weights, value, gap, step)
        while True:
            logits = np.log(np.maximum(weights, 1e-300)) - rate * gradient
            trial = np.exp(logits - logits.max())
            trial /= trial.sum()
            trial_value, trial_gradient = function(trial)
            # Armijo's rule for mirror descent: at least half of the decrease that the gradient promises.
            if trial_value <= value + 0.5 * float(gradient @ (trial - weights)) or rate < 1e-12:
                break
            rate /= 2
        if rate < 1e-12:
            break  # no step along the gradient is an improvement any more: rounding
        weights, value, gradient = trial, trial_value, trial_gradient
        rate *= 1.5
    return Optimum(weights, value, gap_at(weights, gradient), step + 1)


def gap_at(weights: Vector, gradient: Vector) -> float:
    """Return the Frank-Wolfe gap w·g − min g."""
    return float(weights @ gradient - gradient.min())


def prune(weights: Vector, below: float = 1e-3) -> Vector:
    """Set weights under `below` to zero and scale the rest to sum to 1, so that no silent part is carried."""
    kept = np.where(weights < below, 0.0, weights)
    return kept / kept.sum()
