"""What two members say of an ensemble of any size. Arrays and numbers in, numbers out."""

from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma


def of_size(size: int, alone: float, apart: float) -> float:
    """Return the expected squared distance of `size` exchangeable members, mixed with equal weights, from the reals.

    alone: mean squared distance M of one member. apart: mean squared distance D of two members from one another. The
    ambiguity identity (`pipeline.fusion.kernel_distance`) with equal weights: M − (K−1)/(2K)·D. It holds for whatever
    is the square of a Hilbert space's norm: MMD², and the χ² of `imbalance`.
    """
    return alone - (size - 1) / (2 * size) * apart


def overtaking(budgets: Sequence[float], single: Sequence[float], ensemble: Sequence[float]) -> float | None:
    """Return from which budget on the ensemble is nearer than one model of that budget, None where it is not at last.

    budgets: ascending, above 0. single, ensemble: what each of them measures there, less is better. Between budgets
    the difference is taken to be linear in their logarithm. The first of them where it is nearer at all of them.
    """
    behind = np.asarray(ensemble) - np.asarray(single)
    if behind[-1] >= 0:
        return None
    last = int(np.flatnonzero(behind >= 0).max(initial=-1))
    if last < 0:
        return float(budgets[0])
    share = behind[last] / (behind[last] - behind[last + 1])
    return float(np.exp((1 - share) * np.log(budgets[last]) + share * np.log(budgets[last + 1])))


def found_by(size: int, one: float, both: float) -> float:
    """Return the expected share of modes that `size` members find together.

    one: share that a member finds, E π. both: share that two members both find, E π²: a mode is found by each member
    independently, with a probability π of its own. π is taken to follow the Beta distribution with these two moments
    (Dorazio and Royle 2003, "Mixture models for estimating the size of a closed population when capture rates vary
    among individuals"): the result is E[1 − (1−π)^K] = 1 − Π (β+j) / (α+β+j), j < K. Where modes vary
    less than at random (both ≤ one²), all have the same π; where they vary as much as they can, π is 0 or 1.
    """
    variance = both - one**2
    if variance <= 0:
        return 1 - (1 - one) ** size
    total = (one - both) / variance  # α + β
    if total <= 0:
        return one
    steps = np.arange(size)
    return float(1 - np.prod((total * (1 - one) + steps) / (total + steps)))


def imbalance(counts: NDArray[np.int64], other: NDArray[np.int64] | None = None) -> float:
    """Return the unbiased estimate of M·Σ pₘ² − 1, from how often each of M modes was drawn (M, two images or more).

    That is the χ² divergence from the uniform distribution. other: counts of other, independent images: then M·Σ pₘqₘ
    − 1, so that the χ² of any mixture follows, as an MMD²'s does from mean kernel values.
    """
    total = counts.sum()
    if other is None:
        return float(len(counts) * np.sum(counts * (counts - 1.0)) / (total * (total - 1.0)) - 1)
    return float(len(counts) * np.sum(1.0 * counts * other) / (total * other.sum()) - 1)


def divergence_at(imbalance: float, modes: int, images: int) -> float:
    """Return the expected KL divergence from the uniform distribution of the frequencies seen in so many images.

    imbalance: χ² of what the images are drawn from; drawing adds (modes − 1) / images. Frequencies relative to the
    uniform ones are taken to follow the Gamma distribution with mean 1 and that variance v: E[x ln x] = ψ(1 + 1/v) +
    ln v, which is v/2 for small ones.
    """
    variance = max(imbalance, 0.0) * (1 - 1 / images) + (modes - 1) / images
    return float(digamma(1 + 1 / variance) + np.log(variance))


def groups(count: int, size: int, most: int, seed: int) -> list[tuple[int, ...]]:
    """Return different sets of `size` out of `count` members: all where they are at most `most`, else drawn ones."""
    if comb(count, size) <= most:
        return list(combinations(range(count), size))
    random, found = np.random.default_rng(seed), set[tuple[int, ...]]()
    while len(found) < most:
        found.add(tuple(sorted(random.permutation(count)[:size].tolist())))
    return sorted(found)
