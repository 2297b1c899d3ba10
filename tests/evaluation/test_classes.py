"""Coverage of each class, and how often a classifier finds it."""

import numpy as np
import pytest
import torch

from pipeline.evaluation.classes import class_shares, coverage_by_class
from pipeline.evaluation.features import Features
from pipeline.evaluation.metrics import among_neighbours, measure
from pipeline.evaluation.ruler import Ruler

CENTRES = np.array([[0, 0], [40, 0], [0, 40]])


def features(labels: np.ndarray, seed: int) -> Features:
    """Three clusters apart from each other, one a class."""
    values = CENTRES[labels] + np.random.default_rng(seed).normal(size=(len(labels), 2))
    return Features(values.astype(np.float32), np.eye(4, dtype=np.float32)[labels])


def test_a_missing_class_is_not_covered_and_an_empty_one_has_no_coverage() -> None:
    labels = np.arange(300) % 3
    fake = features(np.arange(300) % 2, 1)
    found = coverage_by_class(fake, features(labels, 0), labels, 4, neighbours=3, seed=0)
    assert found[0] is not None
    assert found[1] is not None
    assert min(found[0], found[1]) > 0.85
    assert found[2:] == [0.0, None]


@pytest.mark.parametrize("fakes", [200, 900])
def test_classes_make_up_the_coverage_of_measure(fakes: int) -> None:
    labels = np.random.default_rng(0).integers(0, 3, 300)
    fake, real = features(np.arange(fakes) % 2, 1), features(labels, 0)
    found = coverage_by_class(fake, real, labels, 3, neighbours=3, seed=5)
    whole = measure(fake, real, Ruler("x", None, "fd_x", spread=1.0), seed=5)["coverage_x"]
    counts = np.bincount(labels)
    # With fewer generated images only so many real ones are looked at, and the classes' shares among these may differ.
    tolerance = 1e-12 if fakes >= 300 else 0.03
    assert np.average(np.array(found, dtype=float), weights=counts) == pytest.approx(whole, abs=tolerance)


def test_coverage_does_not_grow_with_the_number_of_generated_images() -> None:
    def coverage(count: int) -> float:
        sets = [features(np.arange(n) % 3, seed).values for n, seed in ((count, 1), (500, 0))]
        return among_neighbours(torch.from_numpy(sets[0]), torch.from_numpy(sets[1]), 3, 0)["coverage"]

    assert coverage(500) == pytest.approx(7 / 8, abs=0.05)
    assert coverage(5000) == pytest.approx(7 / 8, abs=0.05)


def test_shares_are_those_of_the_largest_logits() -> None:
    assert class_shares(features(np.array([0, 0, 2, 0]), 0), 4) == [0.75, 0, 0.25, 0]
