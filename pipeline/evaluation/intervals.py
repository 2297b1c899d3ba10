"""How sure a Fréchet distance is: what it owes to the number of images, and how far it would vary with other ones.

The infinitesimal jackknife (Jaeckel 1972; Efron, "The jackknife, the bootstrap and other resampling plans", 1982,
chapter 6): the distance's derivative by the weight of each image, in closed form. It is what the delete-d jackknife
estimates by measuring anew without some of the images, at the cost of two distances for all of them together, and it
leaves one number an image, so that generated and real images stay apart and two arms that are measured against the same
real images are compared image by image. A bootstrap of the distance would add its bias once more.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import ChorusError
from pipeline.evaluation.features import Features
from pipeline.evaluation.frechet import ROWS_AT_ONCE, Matrix, Moments, Vector, beyond_rounding, seen_through
from pipeline.evaluation.ruler import Ruler

IMAGES_A_DIMENSION = 5  # with fewer, terms beyond the second order outweigh what the distance differs by
CONFIDENCE = 0.95
QUANTILE = 1.959963984540054  # of the normal distribution at that confidence, two-sided


@dataclass(frozen=True)
class Estimate:
    """A Fréchet distance with what each image adds to it.

    measured: as it comes from the moments. bias: by how much more than between infinitely many images it is expected to
    be. generated: N, real: M influences of the images, of mean 0: the distance's derivative by an image's weight.
    """

    measured: float
    bias: float
    generated: Vector
    real: Vector

    @property
    def value(self) -> float:
        """The distance without its bias; it can be negative where there is next to none."""
        return self.measured - self.bias


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval, and the two standard errors that make it.

    redraws: how it varies where the generator draws other images. real: where other real images are held out.
    """

    value: float
    redraws: float
    real: float

    @property
    def low(self) -> float:
        return self.value - self._half

    @property
    def high(self) -> float:
        return self.value + self._half

    @property
    def beyond_noise(self) -> bool:
        """Whether 0 lies outside."""
        return abs(self.value) > self._half

    @property
    def _half(self) -> float:
        return QUANTILE * math.hypot(self.redraws, self.real)


def enough(generated: int, real: int, dims: int) -> bool:
    """Tell whether so many images allow an estimate in so many dimensions."""
    return min(generated, real) >= max(IMAGES_A_DIMENSION * dims, 2)


def estimate(fake: Features, real: Features, ruler: Ruler) -> Estimate:
    """Return the distance by a ruler; raises `ChorusError` where there are not `enough` images.

    With L the root of Σr and LᵀΣL = U diag(s²) Uᵀ, an image x, centred as c and seen as y = cA through A = LU, has the
    influence 2c(μ − μr) + |c|² − Σᵢ yᵢ²/sᵢ, less its mean: the derivative of the distance is 2(μ − μr) by the mean and
    I − A diag(1/s) Aᵀ by the covariance. The real images' is the same with the sides exchanged, A = ΣLU diag(1/s).
    """
    seen, target = ruler.see(fake.moments), ruler.see(real.moments)
    if not enough(len(fake), len(real), len(seen.mean)):
        raise ChorusError(
            f"{len(fake)} generated and {len(real)} real images are too few for an interval of {ruler.name} in "
            f"{len(seen.mean)} dimensions: it takes {IMAGES_A_DIMENSION} a dimension"
        )
    values, vectors = np.linalg.eigh(seen_through(target.root, seen.covariance))
    # Directions without variance add nothing to the trace root, and no derivative of it is finite there.
    held = beyond_rounding(values)
    roots, through = np.sqrt(values[held]), target.root @ vectors[:, held]
    apart = seen.mean - target.mean
    trace = np.trace(seen.covariance) + np.trace(target.covariance) - 2 * roots.sum()
    generated, first = _influences(fake, ruler, seen, apart, through, roots)
    others, second = _influences(real, ruler, target, -apart, seen.covariance @ through / roots, roots)
    return Estimate(max(float(apart @ apart + trace), 0.0), first + second, generated, others)


def _influences(
    images: Features, ruler: Ruler, own: Moments, apart: Vector, through: Matrix, roots: Vector
) -> tuple[Vector, float]:
    """Return the influence of each image of one side, and the bias that this side's number of images brings.

    The bias is half the expected second derivative. Of |μ − μr|² it is tr Σ / N; of −2 tr (LᵀΣL)^½ it is
    ½ Σᵢⱼ Var(yᵢyⱼ) / (N sᵢsⱼ(sᵢ + sⱼ)), where Var(yᵢyⱼ) is read off the images: they need not be normal.
    """
    fourth = np.zeros((len(roots), len(roots)))
    found = []
    for start in range(0, len(images), ROWS_AT_ONCE):
        centred = ruler.project(images.values[start : start + ROWS_AT_ONCE]) - own.mean
        squares = (centred @ through) ** 2
        fourth += squares.T @ squares
        found.append(2 * centred @ apart + (centred**2).sum(axis=1) - squares @ (1 / roots))
    products = fourth / len(images) - np.diag(roots**4)
    bends = products / (np.outer(roots, roots) * np.add.outer(roots, roots))
    influences = np.concatenate(found)
    bias = (np.trace(own.covariance) + bends.sum() / 2) / len(images)
    return influences - influences.mean(), float(bias)


def bias_of(fake: Moments, real: Moments) -> float:
    """Return the bias that the number of generated images brings, told from the moments alone; 0 for no sample.

    That of `_influences` for normal features, whose fourth moments follow from the second: with Var(yᵢyⱼ) =
    sᵢ²sⱼ²(1 + δᵢⱼ) it is (tr Σ + ½ Σᵢⱼ sᵢsⱼ(1 + δᵢⱼ) / (sᵢ + sⱼ)) / N.
    """
    if fake.images is None:
        return 0.0
    values: Vector = np.linalg.eigvalsh(seen_through(real.root, fake.covariance)).astype(np.float64)
    roots = np.sqrt(values[beyond_rounding(values)])
    bends = (np.outer(roots, roots) / np.add.outer(roots, roots)).sum() + roots.sum() / 2
    return float(np.trace(fake.covariance) + bends / 2) / fake.images


def mean_of(estimates: Sequence[Estimate], spreads: Sequence[float]) -> Estimate:
    """Return the mean of distances of the same images by several rulers, each relative to its `spread`."""
    shares = [1 / (spread * len(estimates)) for spread in spreads]
    parts = list(zip(shares, estimates, strict=True))
    return Estimate(
        sum(share * one.measured for share, one in parts),
        sum(share * one.bias for share, one in parts),
        np.sum([share * one.generated for share, one in parts], axis=0),
        np.sum([share * one.real for share, one in parts], axis=0),
    )


def interval(one: Estimate) -> Interval:
    """Return the distance without its bias, and how sure it is."""
    return Interval(one.value, error_of(one.generated), error_of(one.real))


def difference(one: Estimate, other: Estimate) -> Interval:
    """Return by how much `one` is farther away than `other` (negative: nearer), and how sure that is.

    Both are measured against the same real images, in one order, so what these have in common cancels; their own images
    were drawn apart. Raises `ChorusError` for other numbers of real images.
    """
    if len(one.real) != len(other.real):
        raise ChorusError(f"arms measured against {len(one.real)} and {len(other.real)} real images make no pairs")
    redraws = math.hypot(error_of(one.generated), error_of(other.generated))
    return Interval(one.value - other.value, redraws, error_of(one.real - other.real))


def error_of(influences: Vector) -> float:
    """Return the standard error of what the influences of N images add up to; they need not have mean 0."""
    return float(influences.std() / math.sqrt(len(influences) - 1))
