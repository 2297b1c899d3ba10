"""The ruler: the features, and how many of their dimensions, that a Fréchet distance is measured in."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

FEW_DIMS = 16
ENOUGH_IMAGES = 10  # images a dimension below which the distance is mostly bias


@dataclass(frozen=True)
class Ruler:
    """A linear map of an extractor's features.

    dims: leading principal components that are kept, None for all features as they are. name: the metric's name, e.g.
    "fd16_classifier". mean, basis: D and D×dims float64, None with dims None.
    """

    extractor: str
    dims: int | None
    name: str
    mean: np.ndarray | None = field(default=None, repr=False)
    basis: np.ndarray | None = field(default=None, repr=False)

    def project(self, features: np.ndarray) -> np.ndarray:
        """Map features N×D to float64 N×d: centred principal components, or the features themselves."""
        values = np.asarray(features, dtype=np.float64)
        if self.mean is None or self.basis is None:
            return values
        return (values - self.mean) @ self.basis


def choose_dims(setting: Literal["auto", "all"] | int, features: int, val_images: int) -> int | None:
    """Resolve `evaluation.dims` for an extractor with so many features; None means all of them.

    auto: all where half of val (what fusion fits on) has at least 10 images a feature, else 16. Below that a Fréchet
    distance is mostly the bias of its covariance estimate, which grows with the square of the dimensions.
    """
    if setting == "all":
        return None
    if setting == "auto":
        if val_images / 2 >= ENOUGH_IMAGES * features:
            return None
        setting = FEW_DIMS
    return setting if setting < features else None


def frechet_name(extractor: str, dims: int | None) -> str:
    """Name the distance for what it is: "fid" only on the Inception network's features, else fd_NAME or fdDIMS_NAME."""
    if extractor == "inception-v3-compat" and dims is None:
        return "fid"
    return f"fd{dims or ''}_{extractor}"


def fit_ruler(extractor: str, train: np.ndarray, dims: int | None) -> Ruler:
    """Return the ruler on the `dims` leading principal components of real train features N×D (all with None).

    Each component's sign is fixed by its largest entry, so that equal features give equal bytes.
    """
    if dims is None:
        return Ruler(extractor, None, frechet_name(extractor, None))
    values = np.asarray(train, dtype=np.float64)
    mean = values.mean(axis=0)
    centred = values - mean
    vectors = np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :dims]
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(dims)])
    return Ruler(extractor, dims, frechet_name(extractor, dims), mean, np.ascontiguousarray(vectors * signs))
