"""Stacked-MNIST: the modes that it is made of, and how they are counted."""

from pathlib import Path

import numpy as np
import pytest
import stacked_mnist
import torch
from stacked_mnist import FEATURES, MODES, Reader, divergence, mode_of, prepare, read, stacked

from pipeline.data.dataset import load_split
from pipeline.evaluation.networks import Standardised


def digits(per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures whose every pixel says their class and their number in it, in no order."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), per_class))
    images = np.broadcast_to((labels * 10).astype(np.uint8)[:, None, None], (len(labels), 28, 28)).copy()
    images[:, 0, 0] += np.arange(len(labels), dtype=np.uint8) % 10
    return images, labels


def test_stacked_images_are_of_the_modes_that_are_said() -> None:
    images, modes = stacked(*digits(3), 500, seed=0)
    assert images.shape == (500, 3, 28, 28)
    assert images.dtype == np.uint8
    assert (mode_of(images[:, :, 5, 5].astype(np.int64) // 10) == modes).all()
    assert (stacked(*digits(3), 500, seed=0)[0] == images).all()
    assert (stacked(*digits(3), 500, seed=1)[1] != modes).any()


def test_modes_are_drawn_uniformly_whatever_the_digits_are() -> None:
    images, labels = digits(20)
    kept = (labels > 0) | (np.cumsum(labels == 0) <= 1)  # a single zero
    _, modes = stacked(images[kept, :1, :1], labels[kept], 50_000, seed=0)
    counts = np.bincount(modes, minlength=MODES)
    expected = 50_000 / MODES
    # χ² of 999 degrees of freedom: 999 ± 45
    assert np.sum((counts - expected) ** 2 / expected) == pytest.approx(999, abs=4 * 45)


def test_divergence_by_hand() -> None:
    assert divergence(np.arange(MODES)) == pytest.approx(0)
    assert divergence(np.zeros(7, dtype=np.int64)) == pytest.approx(np.log(MODES))
    assert divergence(np.arange(MODES // 2)) == pytest.approx(np.log(2))


def test_every_channel_is_read_by_itself() -> None:
    torch.manual_seed(0)
    reader, device = Standardised(Reader(), FEATURES).eval(), torch.device("cpu")
    images = np.random.default_rng(0).integers(256, size=(6, 3, 28, 28), dtype=np.uint8)
    classes, features = read(reader, images, device)
    assert classes.shape == (6, 3)
    assert features.shape == (6, 3 * FEATURES)
    for channel in range(3):
        alone, own = read(reader, images[:, channel : channel + 1], device)
        assert (classes[:, channel] == alone[:, 0]).all()
        np.testing.assert_allclose(features[:, channel * FEATURES : (channel + 1) * FEATURES], own, atol=1e-5)


def test_prepared_images_are_read_by_the_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacked_mnist, "COUNTS", {"train": 30, "val": 20, "gate": 20, "test": 10})
    prepare({split: digits(2) for split in stacked_mnist.COUNTS}, tmp_path, seed=0)
    train, gate = load_split(tmp_path, "train"), load_split(tmp_path, "gate")
    assert train.images.shape == (30, 3, 28, 28)
    assert train.labels is None
    assert (gate.images != train.images[:20]).any()
