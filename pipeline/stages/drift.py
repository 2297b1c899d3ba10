"""How far the new images of the watched folder are from those that were trained on. No stage: it writes nothing."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data import drift
from pipeline.data.dataset import load_split, read_manifest
from pipeline.data.decode import BadImageError, decode, to_array
from pipeline.data.folder import unread
from pipeline.data.raw import read_json_lines
from pipeline.errors import ChorusError
from pipeline.project import Project
from pipeline.randomness import derive_seed


def run(project: Project) -> None:
    """Print what `look` finds, as one line of JSON."""
    print(json.dumps(look(project)), flush=True)


def look(project: Project) -> dict[str, Any]:
    """Compare the images of `data.root` that the last `ingest` has not seen with those of the train split.

    Keys: `reference` (hash of the prepared images), `new` (how many were looked at, a random part where they are very
    many), `drifted` (beyond chance, and beyond `flow.drift.threshold`), `said` (in words), and, with enough of them,
    `distance`, `chance` and `deviation` (see `pipeline.data.drift`). Images are told apart by their names: one that was
    replaced under its name is not new. Raises `ChorusError` where the data are no folder, or nothing was prepared yet.
    """
    if project.params.data.source != "folder":
        raise ChorusError(f"data.source = '{project.params.data.source}': new images come into a 'folder' alone")
    limits = project.params.flow.drift
    manifest = read_manifest(project.prepared)
    told: dict[str, Any] = {"reference": manifest["hash"]}
    pixels = _new_pixels(project, manifest["size"], manifest["channels"])
    if len(pixels) < limits.images:
        return {**told, "new": len(pixels), "drifted": False, "said": f"{len(pixels)} new images, too few to tell"}
    train = drift.small(load_split(project.prepared, "train").images)
    moved = drift.shift(pixels, drift.sketch(train), derive_seed(0, "drift"))
    return {
        **told,
        "new": len(pixels),
        "drifted": moved.changed and moved.distance > limits.threshold,
        "said": f"{len(pixels):,} new images are {moved.distance:.3f} away (chance {moved.chance:.3f})",
        "distance": moved.distance,
        "chance": moved.chance,
        "deviation": moved.deviation,
    }


def _new_pixels(project: Project, size: int, channels: int) -> NDArray[np.float32]:
    """Return the small pixels of new images, N×D, after they were made as large and colourful as the prepared ones."""
    seen = {line["id"] for name in ("index", "rejected") for line in read_json_lines(project.raw / f"{name}.jsonl")}
    decoded = islice(_decoded(project, seen, size, channels), drift.AT_MOST)
    parts = []
    while images := list(islice(decoded, drift.AT_ONCE)):
        parts.append(drift.small(np.stack(images)))
    return np.concatenate(parts) if parts else np.empty((0, channels * drift.SIDE**2), np.float32)


def _decoded(project: Project, seen: set[str], size: int, channels: int) -> Iterator[np.ndarray]:
    data = project.params.data
    assert data.root is not None
    for content in unread(project.root / data.root.expanduser(), seen):
        try:
            yield to_array(decode(content, data.max_pixels), size, channels)
        except BadImageError:
            continue
