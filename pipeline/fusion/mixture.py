"""The Fréchet distance of a mixture in closed form: a convex function of its weights.

Measured by few images a distribution seems farther away than it is, by b (`pipeline.evaluation.intervals.bias_of`). A
mixture of parts with biases bᵢ holds Σwᵢ²bᵢ of it: less, the more images there are in it. So weights that spread seem
to gain where they gain nothing, and images held out of the real side never tell. What weights are fitted by is
`unbiased`: without that term. What it estimates is convex; itself it is so up to the noise of the moments, and a gap of
zero says that the KKT conditions hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.frechet import Matrix, Moments, Vector, Views, seen_through, transport
from pipeline.evaluation.intervals import bias_of
from pipeline.fusion.simplex import Optimum, minimise


def mixed(parts: Sequence[Views], weights: Vector) -> Views:
    """Return what the extractors see of the mixture Σwᵢpᵢ; parts without weight are not looked at."""
    drawn = [(float(weight), part) for weight, part in zip(weights, parts, strict=True) if weight > 0]
    views = []
    for seen in range(len(parts[0])):
        mean, second = np.zeros_like(parts[0][seen].mean), np.zeros_like(parts[0][seen].covariance)
        for weight, part in drawn:
            mean += weight * part[seen].mean
            second += weight * (part[seen].covariance + np.outer(part[seen].mean, part[seen].mean))
        views.append(Moments(mean, second - np.outer(mean, mean)))
    return tuple(views)


@dataclass(frozen=True)
class MixtureDistance:
    """Fréchet distance of Σwᵢpᵢ from the real images as one extractor sees it, from moments alone.

    means: M×d, second: M×d×d raw second moments Sᵢ + μᵢμᵢᵀ of the parts; real_mean: d, real_root: d×r root L of the
    real covariance, LLᵀ = Σr. A mixture's moments are μ = Σwᵢμᵢ and Σ = ΣwᵢMᵢ − μμᵀ, so no new samples are needed.
    The value is linear in w but for −2 tr (LᵀΣL)^½, and Σ is matrix-concave in w: hence convex. bias: M, what of each
    part's own distance is due to the number of its images, to be taken off; 0 where it stays.
    """

    means: Matrix
    second: NDArray[np.float64]
    real_mean: Vector
    real_root: Matrix
    bias: Vector

    @classmethod
    def of(cls, parts: Sequence[Moments], real: Moments, *, unbiased: bool = False) -> "MixtureDistance":
        """Build from the moments of the parts and of the real images; unbiased: without what the parts' counts add."""
        means = np.stack([mean for mean, _ in parts])
        second = np.stack([cov + np.outer(mean, mean) for mean, cov in parts])
        bias = np.array([bias_of(part, real) if unbiased else 0.0 for part in parts])
        return cls(means, second, real.mean, real.root, bias)

    def against(self, real: Moments) -> "MixtureDistance":
        """Return the distance of mixtures of the same parts from other real images."""
        return MixtureDistance(self.means, self.second, real.mean, real.root, self.bias)

    def value(self, weights: Vector) -> float:
        """Return the distance at `weights` alone, in a third of the time that its gradient takes besides."""
        mean, covariance = self._moments(weights)
        values = np.linalg.eigvalsh(seen_through(self.real_root, covariance))
        return self._distance(weights, mean, covariance, float(np.sqrt(values.clip(min=0)).sum()))

    def __call__(self, weights: Vector) -> tuple[float, Vector]:
        """Return the distance at `weights` (M, on the simplex) and its gradient (M).

        With T = L (LᵀΣL)^−½ Lᵀ the gradient is gᵢ = tr Mᵢ − 2μᵢᵀμr − tr(TMᵢ) + 2μᵢᵀTμ − 2wᵢbᵢ.
        """
        mean, covariance = self._moments(weights)
        moved, trace_root = transport(self.real_root, covariance)
        gradient = (
            np.trace(self.second, axis1=1, axis2=2)
            - 2 * self.means @ self.real_mean
            - np.tensordot(self.second, moved, 2)
            + 2 * self.means @ (moved @ mean)
            - 2 * weights * self.bias
        )
        return self._distance(weights, mean, covariance, trace_root), gradient

    def _moments(self, weights: Vector) -> Moments:
        mean = weights @ self.means
        return Moments(mean, np.tensordot(weights, self.second, 1) - np.outer(mean, mean))

    def _distance(self, weights: Vector, mean: Vector, covariance: Matrix, trace_root: float) -> float:
        traces = np.trace(covariance) + np.sum(self.real_root**2) - 2 * trace_root
        return float(np.sum((mean - self.real_mean) ** 2) + traces - weights**2 @ self.bias)


@dataclass(frozen=True)
class MeanDistance:
    """The mean of the mixture's Fréchet distances as several extractors see them: convex as each of them is."""

    each: tuple[MixtureDistance, ...]

    @classmethod
    def of(cls, parts: Sequence[Views], real: Views, *, unbiased: bool = False) -> "MeanDistance":
        """Build from what the extractors see of the parts and of the real images; unbiased: as of `MixtureDistance`."""
        pairs = zip(zip(*parts, strict=True), real, strict=True)
        return cls(tuple(MixtureDistance.of(seen, own, unbiased=unbiased) for seen, own in pairs))

    def against(self, real: Views) -> "MeanDistance":
        """Return the distance of mixtures of the same parts from other real images; what is of the parts is shared."""
        return MeanDistance(tuple(one.against(own) for one, own in zip(self.each, real, strict=True)))

    def __call__(self, weights: Vector) -> tuple[float, Vector]:
        """Return the distance at `weights` (M, on the simplex) and its gradient (M)."""
        values, gradients = zip(*(distance(weights) for distance in self.each), strict=True)
        return float(np.mean(values)), np.mean(gradients, axis=0)

    def value(self, weights: Vector) -> float:
        """Return the distance at `weights` alone."""
        return float(np.mean([distance.value(weights) for distance in self.each]))

    @property
    def bias(self) -> Vector:
        """What is taken off of each part (M), times the square of its weight."""
        return np.asarray(np.mean([distance.bias for distance in self.each], axis=0))

    def optimum(self) -> Optimum:
        """Return the weights of the smallest distance."""
        return minimise(self, len(self.each[0].means))
