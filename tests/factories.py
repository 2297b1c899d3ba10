"""Small valid folders that tests of later stages start from."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.data.dataset import SPLITS, Split, load_split
from pipeline.data.manifest import write_manifest
from pipeline.files import write_array


def structured_images(n: int, size: int, channels: int, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return uint8 n×channels×size×size images: stripes whose angle says the class, phase and contrast vary."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:size, 0:size] / size
    angle = np.pi * labels[:, None, None] / (labels.max(initial=0) + 1)
    phase = random.uniform(0, 2 * np.pi, (n, 1, 1))
    wave = np.sin(2 * np.pi * 1.5 * (rows * np.cos(angle) + columns * np.sin(angle)) + phase)
    tint = random.uniform(0.5, 1, (n, channels, 1, 1))
    pixels = 127.5 + 100 * wave[:, None] * tint + random.normal(0, 5, (n, channels, size, size))
    return pixels.round().clip(0, 255).astype(np.uint8)


def write_prepared(
    folder: Path,
    n_train: int = 256,
    n_val: int = 96,
    n_gate: int = 64,
    n_test: int = 64,
    size: int = 8,
    channels: int = 1,
    classes: Sequence[str] | None = ("a", "b", "c"),
    seed: int = 0,
) -> Split:
    """Write a prepared data set (as the `prepare` stage would) into `folder` and return its train split."""
    for index, (name, n) in enumerate(zip(SPLITS, (n_train, n_val, n_gate, n_test), strict=True)):
        labels = np.arange(n, dtype=np.int64) % len(classes or ("any",))
        write_array(folder / f"{name}.npy", structured_images(n, size, channels, labels, seed * len(SPLITS) + index))
        if classes is not None:
            write_array(folder / f"{name}_labels.npy", labels)
    write_manifest(folder, source="folder", size=size, channels=channels, classes=classes, duplicates=0, quarantined=0)
    return load_split(folder, "train")
