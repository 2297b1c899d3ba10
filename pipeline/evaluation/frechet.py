"""The Fréchet distance between Gaussians, in numpy alone.

Dowson and Landau, "The Fréchet distance between multivariate normal distributions", 1982, equation 16.
"""

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Moments = tuple[Vector, Matrix]  # mean (d) and covariance (d×d)
Views = tuple[Moments, ...]  # the same images as several extractors see them, always in one order


def moments(x: np.ndarray) -> Moments:
    """Return the mean (d) and the unbiased covariance (d×d, divisor N - 1), both float64, of samples N×d, N ≥ 2."""
    x = np.asarray(x, dtype=np.float64)
    mean = x.mean(axis=0)
    centred = x - mean
    return mean, centred.T @ centred / (len(x) - 1)


def sqrt_psd(matrix: Matrix) -> Matrix:
    """Return the symmetric square root of a symmetric positive semi-definite matrix; rounding below 0 counts as 0."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T


def distance(mean1: Vector, cov1: Matrix, mean2: Vector, cov2: Matrix) -> float:
    """Return |μ1 - μ2|² + tr(Σ1 + Σ2 - 2 (Σ1^½ Σ2 Σ1^½)^½), at least 0.

    The symmetric product has the eigenvalues of Σ1 Σ2, which torch-fidelity takes, but real ones, and at half the cost.
    """
    root = sqrt_psd(cov1)
    product = root @ cov2 @ root
    values = np.linalg.eigvalsh((product + product.T) / 2)
    difference = mean1 - mean2
    trace = np.trace(cov1) + np.trace(cov2) - 2 * np.sqrt(values.clip(min=0)).sum()
    return max(float(difference @ difference + trace), 0.0)


def mean_distance(one: Views, other: Views) -> float:
    """Return the mean of the distances that the extractors see."""
    return float(np.mean([distance(*mine, *theirs) for mine, theirs in zip(one, other, strict=True)]))
