"""The prepared data set as other stages read it: memory-mapped arrays and their manifest."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ChorusError
from pipeline.files import read_array, read_json

SCHEMA = 1
SPLITS = ("train", "val", "gate", "test")


@dataclass(frozen=True)
class Split:
    """One split: images uint8 N×C×H×W (memory-mapped, read only), labels int64 N in [0, classes) or None.

    Rows come in the order of the images' hashes, so any stretch of them is a fair sample of the split.
    """

    images: np.ndarray
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.images)


def read_manifest(prepared: Path) -> dict[str, Any]:
    """Return the manifest of a prepared data set.

    Its keys: `schema`, `source`, `size`, `channels`, `classes` (names or None), `counts` (by split), `class_counts`
    (by split, in the order of `classes`; or None), `duplicates`, `quarantined`, `hash` (SHA-256 over all arrays).
    Raises `ChorusError` where it is missing, damaged or of another schema.
    """
    path = prepared / "manifest.json"
    manifest = read_json(path)
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA:
        raise ChorusError(f"{path} has schema {schema}, this code reads {SCHEMA}; run `dvc repro prepare`")
    return dict(manifest)


def load_split(prepared: Path, name: str) -> Split:
    """Open one split of a prepared data set without reading it into memory.

    name: `train` (fits networks), `val` (takes every decision inside a run), `gate` (the judge's) or `test`, which
    stays closed: only an explicit command opens it, and only published claims are made on it.
    Raises `ChorusError` for an unknown name, and where files are missing, damaged or do not fit the manifest.
    """
    manifest = read_manifest(prepared)
    if name not in SPLITS:
        raise ChorusError(f"there is no split '{name}'; the splits are {', '.join(SPLITS)}")
    count = manifest["counts"][name]
    shape = (count, manifest["channels"], manifest["size"], manifest["size"])
    images = _open(prepared / f"{name}.npy", shape, np.dtype(np.uint8))
    if manifest["classes"] is None:
        return Split(images, None)
    return Split(images, _open(prepared / f"{name}_labels.npy", (count,), np.dtype(np.int64)))


def _open(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    array = read_array(path)
    if array.shape != shape or array.dtype != dtype:
        found = f"{array.dtype} {array.shape}"
        raise ChorusError(f"{path} holds {found}, its manifest says {dtype} {shape}; run `dvc repro prepare`")
    return array
