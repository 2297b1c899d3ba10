"""The Fréchet distance between Gaussians, in numpy alone.

Dowson and Landau, "The Fréchet distance between multivariate normal distributions", 1982, equation 16.
"""

from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ChorusError

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
ROWS_AT_ONCE = 4096  # samples that are held in float64 at a time
COLUMNS_AT_ONCE = 256


class _Pair(NamedTuple):
    mean: Vector
    covariance: Matrix


def beyond_rounding(values: Vector) -> NDArray[np.bool_]:
    """Tell which of a covariance's d eigenvalues, or of a product of two, are more than the rounding of the largest.

    The others are of directions without variance, as where there are fewer images than features.
    """
    held: NDArray[np.bool_] = values > len(values) * np.finfo(np.float64).eps * max(values.max(initial=0.0), 1e-300)
    return held


class Moments(_Pair):
    """Mean (d) and covariance (d×d) of a set of images, and the root that all that is compared with it shares.

    images: how many, None where they are of no sample, such as those of a mixture.
    """

    images: int | None

    def __new__(cls, mean: Vector, covariance: Matrix, images: int | None = None) -> Self:
        made = super().__new__(cls, mean, covariance)
        made.images = images
        return made

    @cached_property
    def root(self) -> Matrix:
        """A root L of the covariance, d×r and lower trapezoidal: L Lᵀ = Σ, r being its rank.

        That of Cholesky, at a tenth of the symmetric root's cost; of a covariance that is not definite, as where there
        are fewer images than features, the eigenvectors' without the directions that hold rounding alone.
        """
        try:
            return np.asarray(np.linalg.cholesky(self.covariance), dtype=np.float64)
        except np.linalg.LinAlgError:
            values, vectors = np.linalg.eigh(self.covariance)
        held = beyond_rounding(values)
        upper = np.linalg.qr((vectors[:, held] * np.sqrt(values[held])).T, mode="r")
        return np.asarray(upper, dtype=np.float64).T


Views = tuple[Moments, ...]  # the same images as several extractors see them, always in one order


class Running:
    """Moments of samples that arrive in batches: memory is d×d in float64, however many there are.

    Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979,
    equation 2.1, which keeps sums around the mean, so that a mean far from zero costs no digits.
    """

    def __init__(self, dims: int) -> None:
        self.count = 0
        self.mean: Vector = np.zeros(dims)
        self.scatter: Matrix = np.zeros((dims, dims))

    def update(self, batch: np.ndarray) -> None:
        """Add samples n×d."""
        if not len(batch):
            return
        values = np.asarray(batch, dtype=np.float64)
        mean = values.mean(axis=0)
        centred, apart = values - mean, mean - self.mean
        total = self.count + len(values)
        self.scatter = self.scatter + centred.T @ centred + np.outer(apart, apart) * (self.count * len(values) / total)
        self.mean = self.mean + apart * (len(values) / total)
        self.count = total

    def moments(self) -> Moments:
        """Return the mean and the unbiased covariance (divisor N - 1).

        Raises `ChorusError` for fewer than two samples and for values that are not finite.
        """
        if self.count < 2:
            raise ChorusError(f"a Fréchet distance needs at least 2 images on each side, not {self.count}")
        if not np.isfinite(np.diagonal(self.scatter)).all():
            raise ChorusError("features hold NaN or infinite values: the extractor or the images it saw are broken")
        return Moments(self.mean, self.scatter / (self.count - 1), self.count)


def moments(x: np.ndarray) -> Moments:
    """Return the mean and the unbiased covariance, both float64, of samples N×d, N ≥ 2; raises as `Running.moments`."""
    running = Running(x.shape[1])
    for start in range(0, len(x), ROWS_AT_ONCE):
        running.update(x[start : start + ROWS_AT_ONCE])
    return running.moments()


def seen_through(root: Matrix, covariance: Matrix) -> Matrix:
    """Return LᵀΣL, r×r with nothing above the diagonal's blocks, of a lower trapezoidal root L (d×r) and a covariance.

    Column by column it leaves out what the zeros of L leave out: a third of the full products' operations.
    """
    result = np.zeros((root.shape[1], root.shape[1]))
    for start in range(0, len(result), COLUMNS_AT_ONCE):
        stop = start + COLUMNS_AT_ONCE
        half = covariance[start:, start:] @ root[start:, start:stop]
        result[start:, start:stop] = root[start:, start:].T @ half
    return result


def transport(root: Matrix, covariance: Matrix) -> tuple[Matrix, float]:
    """Return T = L (LᵀΣL)^−½ Lᵀ, d×d, and tr (LᵀΣL)^½ of a root L, d×r, and a covariance Σ, d×d.

    I − T is the derivative of the distance by Σ. Directions without variance have no finite slope; they are left out of
    T, as in a pseudo-inverse.
    """
    values, vectors = np.linalg.eigh(root.T @ covariance @ root)
    roots = np.sqrt(np.maximum(values, 0))
    inverse = np.divide(1, roots, out=np.zeros_like(roots), where=beyond_rounding(values))
    half = root @ vectors
    return (half * inverse) @ half.T, float(roots.sum())


def distance(fake: Moments, real: Moments) -> float:
    """Return |μ - μr|² + tr(Σ + Σr - 2 (LᵀΣL)^½), at least 0, where L is the real side's root.

    LᵀΣL has the eigenvalues of ΣΣr, which torch-fidelity takes, but for zeros; being symmetric it gives them as real
    numbers and in a quarter of the time. The root is found once for all that is compared with the same real images.
    """
    values = np.linalg.eigvalsh(seen_through(real.root, fake.covariance))
    apart = fake.mean - real.mean
    trace = np.trace(fake.covariance) + np.trace(real.covariance) - 2 * np.sqrt(values.clip(min=0)).sum()
    return max(float(apart @ apart + trace), 0.0)


def mean_distance(fake: Views, real: Views) -> float:
    """Return the mean of the distances that the extractors see."""
    return float(np.mean([distance(mine, theirs) for mine, theirs in zip(fake, real, strict=True)]))
