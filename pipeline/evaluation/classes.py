"""Which classes a generator covers, and how often it draws each."""

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.evaluation.features import Features
from pipeline.evaluation.metrics import NEIGHBOUR_IMAGES
from pipeline.evaluation.neighbours import covered, equally_many


def coverage_by_class(
    fake: Features, real: Features, labels: NDArray[np.int64], classes: int, *, neighbours: int, seed: int
) -> list[float | None]:
    """Return for each class the share of its real images with a generated one in their ball (see `neighbours.covered`).

    labels: N int64 in [0, classes) of the real images. None for a class of which there is none. Equally many generated
    and real images are compared, the same as by `metrics.measure` with this seed: the mean over them is its coverage.
    """
    fakes, reals = equally_many(len(fake), len(real), NEIGHBOUR_IMAGES, seed)
    fake_values, real_values = (torch.from_numpy(np.array(part.values)) for part in (fake, real))
    inside = covered(fake_values[fakes], real_values[reals], neighbours).numpy()
    of = labels[reals.numpy()]
    counts = np.bincount(of, minlength=classes)
    hits = np.bincount(of, weights=inside, minlength=classes)
    return [float(hit / count) if count else None for count, hit in zip(counts, hits, strict=True)]


def class_shares(features: Features, classes: int) -> list[float]:
    """Return the share of images that the classifier with these logits (N×classes) puts into each class."""
    assert features.logits is not None
    shares: list[float] = (np.bincount(features.logits.argmax(1), minlength=classes) / len(features)).tolist()
    return shares
