"""Which group an image is of, told by its features: that of the nearest mean, of a class or of a cluster."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.frechet import Matrix, Vector
from pipeline.evaluation.ruler import Ruler

NEVER = -1e30  # the score of a group that no real image is of
ROUNDS = 100  # of Lloyd's algorithm, at most


@dataclass(frozen=True)
class Head:
    """Linear scores of groups; an image is of the group with the highest. weights: K×d, biases: K."""

    weights: Matrix
    biases: Vector

    @classmethod
    def nearest(cls, centres: Matrix, present: NDArray[np.bool_]) -> "Head":
        """Return the head that names the nearest of the centres K×d that are present: −½|x − c|², less −½x²."""
        kept = np.where(present[:, None], centres, 0.0)
        return cls(kept, np.where(present, -0.5 * (kept**2).sum(axis=1), NEVER))

    def groups(self, points: Matrix) -> NDArray[np.int64]:
        """Return the group of each point of N×d."""
        found: NDArray[np.int64] = (points @ self.weights.T + self.biases).argmax(axis=1)
        return found

    def before(self, ruler: Ruler) -> "Head":
        """Return the head that says the same of an extractor's own features, where this one reads the ruler's."""
        weights = self.weights / np.sqrt(ruler.spread)
        if ruler.mean is None or ruler.basis is None:
            return Head(weights, self.biases)
        weights = weights @ ruler.basis.T
        return Head(weights, self.biases - weights @ ruler.mean)


def class_means(points: Matrix, labels: NDArray[np.int64], classes: int) -> Head:
    """Return the head of the means of classes; a class without images is never named."""
    centres, counts = _means(points, labels, classes)
    return Head.nearest(centres, counts > 0)


def clusters(points: Matrix, count: int, seed: int) -> Head:
    """Return the head of at most `count` clusters of points N×d, N ≥ 1, found by k-means (Lloyd 1982).

    The first centres are drawn far from each other (k-means++, Arthur and Vassilvitskii 2007), one for each of the
    points that differ at most.
    """
    random = np.random.default_rng(seed)
    centres = points[[random.integers(len(points))]]
    distances = ((points - centres[0]) ** 2).sum(axis=1)
    while len(centres) < count and distances.any():
        chosen = points[random.choice(len(points), p=distances / distances.sum())]
        centres = np.append(centres, chosen[None], axis=0)
        distances = np.minimum(distances, ((points - chosen) ** 2).sum(axis=1))
    all_of_them = np.ones(len(centres), dtype=bool)
    for _ in range(ROUNDS):
        means, counts = _means(points, Head.nearest(centres, all_of_them).groups(points), len(centres))
        # A centre that nothing is nearest to stays where it is.
        means = np.where(counts[:, None] > 0, means, centres)
        if np.array_equal(means, centres):
            break
        centres = means
    return Head.nearest(centres, all_of_them)


def _means(points: Matrix, groups: NDArray[np.int64], count: int) -> tuple[Matrix, NDArray[np.int64]]:
    """Return the mean of each group's points, zeros where it has none, and how many they are."""
    counts = np.bincount(groups, minlength=count)
    sums = np.zeros((count, points.shape[1]))
    np.add.at(sums, groups, points)
    return sums / np.maximum(counts, 1)[:, None], counts
