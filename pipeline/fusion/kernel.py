"""Mean values of KID's kernel between parts, from which the kernel distance of any mixture follows.

The kernel is (γ xᵀy + 1)³ (Bińkowski et al., arXiv:1801.01401, section 4), with γ = 1/d for d features of about unit
variance. Relative features have a total variance of 1 instead, so here γ = 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.frechet import Matrix, Vector

MOMENT_DIMS = 256  # up to here third moments cost less than all pairs of some thousand samples
PAIRED_ROWS = 2000  # samples that are taken of a part beyond it
ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class MeanKernel:
    """Mean kernel values, averaged over extractors: a sum of kernels is a kernel.

    pairs: P×P, over all pairs of a sample of one part and one of the other; in a part with itself each sample meets
    itself too, so the matrix is positive semi-definite. own: P, of samples with themselves. rows: P, samples taken.
    """

    pairs: Matrix
    own: Vector
    rows: Vector

    @classmethod
    def of(cls, parts: Sequence[tuple[Matrix, ...]], seed: int = 0) -> "MeanKernel":
        """Compute from each part's relative features, N×d for each extractor; N may differ between parts."""
        random = np.random.default_rng(seed)
        if max(features.shape[1] for features in parts[0]) > MOMENT_DIMS:
            chosen = [random.permutation(len(part[0]))[:PAIRED_ROWS] for part in parts]
            parts = [tuple(features[rows] for features in part) for part, rows in zip(parts, chosen, strict=True)]
        by_extractor = list(zip(*parts, strict=True))
        pairs = np.mean([mean_kernel(features) for features in by_extractor], axis=0)
        own = np.mean([[own_kernel(part) for part in features] for features in by_extractor], axis=0)
        return cls(pairs, own, np.array([float(len(part[0])) for part in parts]))


def own_kernel(samples: Matrix) -> float:
    """Return the mean of k(x, x) over samples N×d."""
    return float(np.mean((np.sum(samples**2, axis=1) + 1) ** 3))


def mean_kernel(parts: Sequence[Matrix]) -> Matrix:
    """Return the P×P means of k(x, y) over all pairs of samples of P parts, N×d each."""
    return by_moments(parts) if parts[0].shape[1] <= MOMENT_DIMS else by_pairs(parts)


def by_moments(parts: Sequence[Matrix]) -> Matrix:
    """Return the means from moments, in time linear in the samples: E(1 + xᵀy)³ = 1 + 3⟨m₁⟩ + 3⟨m₂⟩ + ⟨m₃⟩.

    ⟨mₖ⟩ is the inner product of the two parts' raw k-th moments E x⊗…⊗x. Third moments are taken slice by slice, so
    memory grows with d² alone; being symmetric, only entries (a, b, c) with b, c ≥ a are computed, and each counts as
    often as its indices can be arranged.
    """
    count, dims = len(parts), parts[0].shape[1]
    first = np.stack([part.mean(axis=0) for part in parts])
    second = np.stack([(part.T @ part / len(part)).ravel() for part in parts])
    total = 1 + 3 * first @ first.T + 3 * second @ second.T
    for a in range(dims):
        arranged = np.full((dims - a, dims - a), 3.0)
        arranged[0] = arranged[:, 0] = 1.5
        arranged[0, 0] = 1.0
        third = np.stack([(part[:, a:] * part[:, a : a + 1]).T @ part[:, a:] / len(part) for part in parts])
        flat = (third * np.sqrt(arranged)).reshape(count, -1)
        total += flat @ flat.T
    return total


def by_pairs(parts: Sequence[Matrix]) -> Matrix:
    """Return the means pair by pair, for features too wide for third moments; memory holds `ROWS_AT_ONCE` rows."""
    total = np.empty((len(parts), len(parts)))
    for i, one in enumerate(parts):
        for j, other in enumerate(parts[: i + 1]):
            sums = [((one[at : at + ROWS_AT_ONCE] @ other.T + 1) ** 3).sum() for at in range(0, len(one), ROWS_AT_ONCE)]
            total[i, j] = total[j, i] = sum(sums) / (len(one) * len(other))
    return total
