"""The kernel distance (KID) of a mixture, a quadratic form in its weights, and what members' disagreement gains."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.frechet import Matrix, Vector
from pipeline.fusion.kernel import MeanKernel
from pipeline.fusion.simplex import Optimum, minimise

PRECISION = 1e-9  # kernel distances of good mixtures are far below 1


@dataclass(frozen=True)
class KernelDistance:
    """MMD²(Σwᵢpᵢ, q) = wᵀKw − 2wᵀb + c of M parts from the real images q.

    parts: K, M×M, and own: M, as of `MeanKernel`. rows: M, samples of the parts. cross: b, M. real, real_own,
    real_rows: the same of the real images. Called as a function it is the biased estimate, which is convex in w.
    """

    parts: Matrix
    own: Vector
    rows: Vector
    cross: Vector
    real: float
    real_own: float
    real_rows: float

    @classmethod
    def of(cls, kernel: MeanKernel, count: int, reals: Sequence[int]) -> "KernelDistance":
        """Build from a kernel whose first `count` parts are mixed; its parts `reals` together are the real images."""
        rows = kernel.rows[list(reals)]
        share = rows / rows.sum()
        real = float(share @ kernel.pairs[np.ix_(reals, reals)] @ share)
        return cls(
            kernel.pairs[:count, :count],
            kernel.own[:count],
            kernel.rows[:count],
            kernel.pairs[:count, list(reals)] @ share,
            real,
            float(share @ kernel.own[list(reals)]),
            float(rows.sum()),
        )

    def __call__(self, weights: Vector) -> tuple[float, Vector]:
        """Return the biased estimate at `weights` (M, on the simplex) and its gradient (M)."""
        drawn = self.parts @ weights
        return float(weights @ drawn - 2 * weights @ self.cross + self.real), 2 * (drawn - self.cross)

    def value(self, weights: Vector) -> float:
        """Return the biased estimate at `weights` alone."""
        return self(weights)[0]

    def optimum(self) -> Optimum:
        """Return the weights of the smallest biased estimate."""
        return minimise(self, len(self.parts), tolerance=PRECISION)

    @property
    def unbiased_parts(self) -> Matrix:
        """K with no sample paired with itself."""
        matrix = self.parts.copy()
        np.fill_diagonal(matrix, without_own(np.diagonal(self.parts), self.own, self.rows))
        return matrix

    @property
    def unbiased_real(self) -> float:
        """c with no image paired with itself."""
        return float(without_own(self.real, self.real_own, self.real_rows))

    def unbiased(self, weights: Vector) -> float:
        """Return the unbiased estimate of the mixture's MMD², which can be below 0."""
        return float(weights @ self.unbiased_parts @ weights - 2 * weights @ self.cross + self.unbiased_real)

    def of_each(self) -> Vector:
        """Return the unbiased MMD² of each part from the real images."""
        return np.diagonal(self.unbiased_parts) - 2 * self.cross + self.unbiased_real

    def between(self) -> Matrix:
        """Return the unbiased M×M MMD² between parts."""
        matrix = self.unbiased_parts
        norms = np.diagonal(matrix)
        return norms[:, None] + norms[None, :] - 2 * matrix

    def ambiguity(self, weights: Vector) -> float:
        """Return ½ΣΣwᵢwⱼ MMD²(pᵢ, pⱼ): by how much the mixture is nearer than its parts are on average.

        MMD²(Σwᵢpᵢ, q) = Σwᵢ MMD²(pᵢ, q) − ½ΣΣwᵢwⱼ MMD²(pᵢ, pⱼ), which is Krogh and Vedelsby 1995, equation 6, with
        mean embeddings for predictions.
        """
        return float(weights @ self.between() @ weights) / 2

    def error_correlation(self) -> Matrix:
        """Return the M×M cosines between the parts' errors, in [-1, 1].

        A part's error is the difference of mean embeddings e = μ_p − μ_q, so that a mixture's is Σwᵢeᵢ and its MMD² is
        ΣΣwᵢwⱼ⟨eᵢ, eⱼ⟩: members whose errors point the same way (1) gain nothing by being mixed, with orthogonal errors
        (0) M equal members gain a factor M. NaN beside a part whose own estimate is not above 0: it has no error left
        to compare.
        """
        products = self.unbiased_parts - self.cross[:, None] - self.cross[None, :] + self.unbiased_real
        squared = np.diagonal(products)
        lengths = np.sqrt(np.where(squared > 0, squared, np.nan))
        return np.clip(products / np.outer(lengths, lengths), -1, 1)


def without_own(mean: Vector | float, own: Vector | float, rows: Vector | float) -> Vector | float:
    """Return the mean over pairs of two different samples, from that over all pairs and that of each with itself."""
    return (rows * mean - own) / (rows - 1)
