"""Whether the images have changed since another version was made: how they look, and how often each class occurs.

Extractors are trained anew on other data, so their features cannot be compared between runs. Small antialiased pixels
can: the distance is the Fréchet distance of their moments, as a share of the variance of the images now.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import chi2_contingency
from torch.nn import functional

from pipeline.evaluation.frechet import Moments, distance, moments

SIDE = 8  # pixels of a small image
AT_MOST = 10_000  # images: a split's rows follow hashes, so the first ones are a random sample
AT_ONCE = 1024
HALVINGS = 16
DEVIATIONS = 3  # beyond chance's mean that count as a change
RARE = 0.001  # p-value below which classes count as changed


@dataclass(frozen=True)
class Sketch:
    """What a version remembers of its training images: moments of their small pixels, and of how many."""

    images: int
    moments: Moments

    @property
    def channels(self) -> int:
        return len(self.moments.mean) // SIDE**2


@dataclass(frozen=True)
class Shift:
    """How far images are from those before.

    chance: mean and standard deviation of that distance between independent draws, as many as here, of one
    distribution. Images that are in both sets bring the distance below it.
    """

    distance: float
    chance: float
    deviation: float

    @property
    def changed(self) -> bool:
        return self.distance > self.chance + DEVIATIONS * self.deviation


def small(images: np.ndarray) -> NDArray[np.float32]:
    """Return the pixels of images, uint8 N×C×S×S, scaled to SIDE×SIDE and to [0, 1]: N×(C·SIDE²), N at most AT_MOST."""
    parts = []
    for start in range(0, min(len(images), AT_MOST), AT_ONCE):
        batch = torch.from_numpy(np.array(images[start : min(start + AT_ONCE, AT_MOST)])).float() / 255
        parts.append(functional.interpolate(batch, (SIDE, SIDE), mode="bilinear", antialias=True).flatten(1))
    return torch.cat(parts).numpy()


def sketch(pixels: NDArray[np.float32]) -> Sketch:
    """Return what is remembered of small pixels N×D, N ≥ 2."""
    return Sketch(len(pixels), moments(pixels))


def shift(pixels: NDArray[np.float32], before: Sketch, seed: int) -> Shift:
    """Compare small pixels N×D, N ≥ 4, with a sketch of other images of as many channels.

    Chance is measured between random halves. Two sets of n and m images differ like 1/n + 1/m, halves of n like 4/n.
    """
    now = sketch(pixels)
    variance = float(np.trace(now.moments.covariance)) or 1.0
    random, half = np.random.default_rng(seed), len(pixels) // 2
    scale = (1 / now.images + 1 / before.images) / (2 / half)
    halves = []
    for _ in range(HALVINGS):
        order = random.permutation(len(pixels))
        one, other = (moments(pixels[rows]) for rows in (order[:half], order[half : 2 * half]))
        halves.append(scale * distance(one, other) / variance)
    far = distance(before.moments, now.moments) / variance
    return Shift(far, float(np.mean(halves)), float(np.std(halves, ddof=1)))


def classes(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, Any]:
    """Compare how often each class occurs among the training images; the counts are by class name.

    Returns the rows (name, share, share before; a share is None where the class did not exist), the total variation
    between them, and the p-value of a χ² test that one distribution explains both, None where there is one class.
    Images that are in both sets make it larger than it should be.
    """
    names = list(dict.fromkeys([*now, *before]))
    counts = np.array([[side.get(name, 0) for name in names] for side in (now, before)], dtype=float)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    occurring = counts[:, counts.any(axis=0)]
    known = occurring.shape[1] > 1 and bool(occurring.sum(axis=1).all())
    p_value = float(chi2_contingency(occurring).pvalue) if known else None
    rows = [
        {
            "name": name,
            "share": float(shares[0, i]) if name in now else None,
            "before": float(shares[1, i]) if name in before else None,
        }
        for i, name in enumerate(names)
    ]
    apart = float(np.abs(shares[0] - shares[1]).sum() / 2)
    return {"rows": rows, "variation": apart, "p_value": p_value, "changed": p_value is not None and p_value < RARE}
