"""The ruler: the features, and how many of their dimensions, that a Fréchet distance is measured in.

Decisions are taken by the rulers of all selection extractors together, so that what one of them overlooks another sees:
by the mean of their distances, each relative to the variance of the real images (`rfd_selection`). It is 0 for real
images, and 1 for a generator that always draws what lies in the middle of them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.frechet import ROWS_AT_ONCE, Matrix, Moments, Views, moments

DECIDES = "rfd_selection"
FEW_DIMS = 16
ENOUGH_IMAGES = 10  # images a dimension below which the distance is mostly bias


@dataclass(frozen=True)
class Ruler:
    """A linear map of an extractor's features.

    dims: leading principal components that are kept, None for all features as they are. name: the metric's name, e.g.
    "fd16_classifier". spread: total variance of the real images of `train`, by which distances are made relative.
    mean, basis: D and D×dims float64, None with dims None.
    """

    extractor: str
    dims: int | None
    name: str
    spread: float
    mean: np.ndarray | None = field(default=None, repr=False)
    basis: np.ndarray | None = field(default=None, repr=False)

    def project(self, features: np.ndarray) -> np.ndarray:
        """Map features N×D to float64 N×d: centred principal components, or the features themselves."""
        values = np.asarray(features, dtype=np.float64)
        if self.mean is None or self.basis is None:
            return values
        return (values - self.mean) @ self.basis

    def see(self, seen: Moments) -> Moments:
        """Map the moments of features to those of what `project` makes of them, with no pass over images."""
        if self.mean is None or self.basis is None:
            return seen
        covariance = self.basis.T @ seen.covariance @ self.basis
        return Moments((seen.mean - self.mean) @ self.basis, covariance, seen.images)

    def relative(self, features: np.ndarray) -> Matrix:
        """Map features N×D to float64 N×d in which real images have a total variance of 1.

        Some rows at a time: copies of all features in float64 would take many times what is returned.
        """
        scaled = np.empty((len(features), self.dims or features.shape[1]))
        for start in range(0, len(features), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            np.divide(self.project(features[rows]), math.sqrt(self.spread), out=scaled[rows])
        return scaled


def choose_dims(setting: Literal["auto", "all"] | int, features: int, images: int) -> int | None:
    """Resolve `evaluation.dims` for an extractor with so many features; None means all of them.

    images: the fewest, of half of `val` and of generated ones, that a decision is taken on. auto: all where there are
    at least 10 a feature, else 16. Below that a Fréchet distance is mostly the bias of its covariance estimate, which
    grows with the square of the dimensions.
    """
    if setting == "all":
        return None
    if setting == "auto":
        if images >= ENOUGH_IMAGES * features:
            return None
        setting = FEW_DIMS
    return setting if setting < features else None


def few_for(rulers: Sequence[Ruler], features: Sequence[Matrix]) -> list[str]:
    """Return the names of the rulers that have too many dimensions for so many images, N×d for each."""
    pairs = zip(rulers, features, strict=True)
    return [ruler.name for ruler, seen in pairs if len(seen) < ENOUGH_IMAGES * seen.shape[1]]


def frechet_name(extractor: str, dims: int | None) -> str:
    """Name the distance for what it is: "fid" only on the Inception network's features, else fd_NAME or fdDIMS_NAME."""
    if extractor == "inception-v3-compat" and dims is None:
        return "fid"
    return f"fd{dims or ''}_{extractor}"


def fit_ruler(extractor: str, train: np.ndarray, dims: int | None) -> Ruler:
    """Return the ruler on the `dims` leading principal components of real train features N×D (all with None).

    Each component's sign is fixed by its largest entry, so that equal features give equal bytes.
    """
    mean, covariance = moments(train)
    if dims is None:
        return Ruler(extractor, None, frechet_name(extractor, None), spread_of(np.trace(covariance)))
    variances, vectors = np.linalg.eigh(covariance)
    kept = vectors[:, ::-1][:, :dims]
    signs = np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(dims)])
    spread = spread_of(variances[::-1][:dims].sum())
    return Ruler(extractor, dims, frechet_name(extractor, dims), spread, mean, np.ascontiguousarray(kept * signs))


def spread_of(variance: float) -> float:
    """Return what distances are divided by: 1 for images that all look the same to the extractor."""
    return float(variance) if variance > 0 else 1.0


@dataclass(frozen=True)
class Real:
    """Real images as the rulers that decide see them.

    features: N×d float64 for each ruler, relative to its spread. labels: N int64, None where there are no classes.
    """

    features: tuple[Matrix, ...]
    labels: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.features[0])

    @cached_property
    def views(self) -> Views:
        """Their moments."""
        return tuple(moments(features) for features in self.features)

    def take(self, rows: NDArray[np.int64]) -> "Real":
        """Return some of the images."""
        labels = None if self.labels is None else self.labels[rows]
        return Real(tuple(features[rows] for features in self.features), labels)


def views(rulers: Sequence[Ruler], features: Mapping[str, np.ndarray]) -> Views:
    """Return the moments that the rulers see of images whose features (N×D) are given by the extractor's name."""
    return tuple(moments(ruler.relative(features[ruler.extractor])) for ruler in rulers)


def decisive(metrics: Mapping[str, float], rulers: Sequence[Ruler]) -> float:
    """Return the distance that decides, from the distances of the rulers that decide."""
    return float(np.mean([metrics[ruler.name] / ruler.spread for ruler in rulers]))
