"""Dividing real images at random, for cross-fitting."""

import numpy as np
from numpy.typing import NDArray

from pipeline.randomness import derive_seed

Rows = NDArray[np.int64]


def folds(images: int, wanted: int, seed: int) -> list[tuple[Rows, Rows]]:
    """Divide `images` rows at random into folds of almost equal size; return (all other rows, the fold's rows) of each.

    There are fewer folds than wanted where each would otherwise have less than two rows, and none for fewer than four.
    """
    count = min(wanted, images // 2)
    if count < 2:
        return []
    order = np.random.default_rng(derive_seed(seed, "folds")).permutation(images)
    return leave_one_out(np.array_split(order, count))


def leave_one_out(parts: list[Rows]) -> list[tuple[Rows, Rows]]:
    """Return for each part the rows of all others, and its own."""
    return [(np.concatenate(parts[:i] + parts[i + 1 :]), own) for i, own in enumerate(parts)]
