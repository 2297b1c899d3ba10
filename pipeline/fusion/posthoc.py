"""Averages of a generator's weights along its training, made after the training from averages that it stored.

Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models", section 3.2 and appendix C: an
average is a profile, a density over the times of the training whose weights it averages. The linear combination of
stored profiles that comes nearest to a wanted one, applied to the stored weights, is nearly the average that training
would have kept, had it been asked to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.training.ema import exponent

Array = NDArray[np.float64]
# Singular values below this share of the largest are taken for zero: what they would add is rounding.
NOISE = 1e-12


@dataclass(frozen=True)
class Profile:
    """The power-function average of relative width `sigma_rel` in (0, 12^-½] after `nimg` > 0 images."""

    sigma_rel: float
    nimg: int


@dataclass(frozen=True)
class Combination:
    """Coefficients of stored averages, which add up to 1; error: what is missing of the wanted profile, as a share.

    The share is of the profile's root mean square: the root of ∫(p̂ - p)² / ∫p². An average of weights that wander as
    white noise does about a mean is that far from the wanted one, as a share of the average's own noise.
    """

    coefficients: Array
    error: float


def combination(stored: Sequence[Profile], wanted: Profile) -> Combination:
    """Return the least-squares combination of stored profiles for a wanted one.

    The coefficients add up to 1, which the paper leaves to the fit: what the combination misses then only moves weights
    along the training and never scales them. Raises `ValueError` where nothing is stored.
    """
    if not stored:
        raise ValueError("there is no stored average to combine")
    gram = inner_products(stored, stored) * wanted.nimg
    target = inner_products(stored, [wanted])[:, 0] * wanted.nimg
    square = inner_products([wanted], [wanted])[0, 0] * wanted.nimg
    # Lagrange's conditions of the constrained least squares.
    count = len(stored)
    system = np.ones((count + 1, count + 1))
    system[:count, :count], system[count, count] = gram, 0
    coefficients = np.linalg.lstsq(system, np.append(target, 1.0), rcond=NOISE)[0][:count]
    coefficients /= coefficients.sum()
    missing = coefficients @ gram @ coefficients - 2 * coefficients @ target + square
    return Combination(coefficients, float(np.sqrt(max(missing, 0.0) / square)))


def inner_products(left: Sequence[Profile], right: Sequence[Profile]) -> Array:
    """Return ∫p q of each pair of profiles, left × right, per image.

    With r the earlier of the two ends: (γp+1)(γq+1)/(γp+γq+1) · (r/tp)^γp (r/tq)^γq / max(tp, tq). That is appendix C's
    integral in a form that does not overflow.
    """
    end, other_end = np.array([p.nimg for p in left])[:, None], np.array([q.nimg for q in right])[None]
    gamma = np.array([exponent(p.sigma_rel) for p in left])[:, None]
    other = np.array([exponent(q.sigma_rel) for q in right])[None]
    first = np.minimum(end, other_end)
    overlap = (first / end) ** gamma * (first / other_end) ** other / np.maximum(end, other_end)
    products: Array = (gamma + 1) * (other + 1) / (gamma + other + 1) * overlap
    return products


def combine(coefficients: Array, weights: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return Σᵢ cᵢ wᵢ by name, added up in fp64 and rounded once to the precision of the first."""
    found = {}
    for name, first in weights[0].items():
        total = torch.zeros_like(first, dtype=torch.float64)
        for coefficient, own in zip(coefficients.tolist(), weights, strict=True):
            total += coefficient * own[name].double()
        found[name] = total.to(first.dtype)
    return found
