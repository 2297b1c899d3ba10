"""How many of a number of images were told rightly: the share, its interval and its p-value."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from pipeline.evaluation.intervals import CONFIDENCE, QUANTILE


@dataclass(frozen=True)
class Proportion:
    """`hits` of `images`, each image an independent trial; images is at least 1."""

    hits: int
    images: int

    @classmethod
    def of(cls, right: np.ndarray) -> "Proportion":
        """Count the true entries of N booleans."""
        return cls(int(right.sum()), len(right))

    @property
    def share(self) -> float:
        return self.hits / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 95 % interval of Clopper and Pearson (Biometrika 26, 1934).

        It is conservative where the images are of two kinds with different chances: such a sum varies no more than the
        binomial with the mean chance (Hoeffding, Annals of Mathematical Statistics 27, 1956).
        """
        low, high = binomtest(self.hits, self.images).proportion_ci(CONFIDENCE, method="exact")
        return float(low), float(high)

    def p_value(self, chance: float) -> float:
        """Return the probability of at least as many hits where each image is told rightly with this chance."""
        return float(binomtest(self.hits, self.images, chance, alternative="greater").pvalue)

    def to_json(self) -> dict[str, Any]:
        """Return `share`, `low` and `high`."""
        low, high = self.interval
        return {"share": self.share, "low": low, "high": high}


def gain(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Return by how much more is right after than before, on the same N images, with its 95 % interval.

    before, after: N booleans. Keys: `share` (after minus before, in [-1, 1]), `low` and `high`: Wald's interval of
    paired proportions with half a count added to each of the four cells (Agresti and Min, Statistics in Medicine 24,
    2005), so that it has a width also where all images are told alike.
    """
    n, won, lost = len(before), int((after & ~before).sum()), int((before & ~after).sum())
    centre = (won - lost) / (n + 2)
    spread = math.sqrt((won + lost + 1 - (won - lost) ** 2 / (n + 2)) / (n + 2) ** 2)
    low, high = centre - QUANTILE * spread, centre + QUANTILE * spread
    return {"share": (won - lost) / n, "low": max(low, -1.0), "high": min(high, 1.0)}
