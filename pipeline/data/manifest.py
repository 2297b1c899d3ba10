"""The manifest of a prepared data set: what its arrays hold, and one hash for all of it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.data.dataset import SCHEMA, SPLITS
from pipeline.files import file_hash, write_json


def write_manifest(
    prepared: Path,
    *,
    source: str,
    size: int,
    channels: int,
    classes: Sequence[str] | None,
    duplicates: int,
    quarantined: int,
) -> None:
    """Describe the arrays that lie in `prepared` in its `manifest.json`; it is written last and makes them valid."""
    names = [f"{split}{kind}.npy" for split in SPLITS for kind in ("", "_labels") if classes is not None or not kind]
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\x00{file_hash(prepared / name)}\n".encode())
    class_counts = None
    if classes is not None:
        labels = {split: np.load(prepared / f"{split}_labels.npy", mmap_mode="r") for split in SPLITS}
        class_counts = {split: np.bincount(labels[split], minlength=len(classes)).tolist() for split in SPLITS}
    content = {
        "schema": SCHEMA,
        "source": source,
        "size": size,
        "channels": channels,
        "classes": None if classes is None else list(classes),
        "counts": {split: len(np.load(prepared / f"{split}.npy", mmap_mode="r")) for split in SPLITS},
        "class_counts": class_counts,
        "duplicates": duplicates,
        "quarantined": quarantined,
        "hash": digest.hexdigest(),
    }
    write_json(prepared / "manifest.json", content)
