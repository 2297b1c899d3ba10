"""What a version's run remembers of its data, and how the data have changed since the version that users know."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import registry
from pipeline.data import drift
from pipeline.data.dataset import load_split, read_manifest
from pipeline.data.drift import Sketch
from pipeline.evaluation.frechet import Moments
from pipeline.files import read_array, read_json, write_array, write_json
from pipeline.project import Project
from pipeline.randomness import derive_seed
from pipeline.registry import Version
from pipeline.tracking import Run, Tracker

FOLDER = "data"  # of the artefacts of a version's run


@dataclass(frozen=True)
class Remembered:
    """The data of a version: the manifest of its prepared images, and what their small pixels were like."""

    manifest: dict[str, Any]
    sketch: Sketch


def remember(project: Project, tracker: Tracker, version: Version) -> None:
    """Store with the version's run what later versions' data are compared with."""
    kept = drift.sketch(drift.small(load_split(project.prepared, "train").images))
    run = Run(tracker.client, version.run_id)
    with tempfile.TemporaryDirectory(prefix="chorus-") as temporary:
        folder = Path(temporary)
        write_json(folder / "manifest.json", {**read_manifest(project.prepared), "sketched": kept.images})
        write_array(folder / "mean.npy", kept.moments.mean)
        write_array(folder / "covariance.npy", kept.moments.covariance)
        for path in sorted(folder.iterdir()):
            run.file(path, FOLDER)


def recall(tracker: Tracker, model: str, number: str) -> Remembered | None:
    """Return what a version remembers of its data, None where its run or that part of it is lost.

    Raises MLflow's error where the store does not answer.
    """
    run = str(tracker.client.get_model_version(model, number).run_id)
    with tempfile.TemporaryDirectory(prefix="chorus-") as temporary:
        folder = registry.download(tracker, Path(temporary), run_id=run, artifact_path=FOLDER)
        if folder is None or not (folder / "covariance.npy").is_file():
            return None
        manifest = read_json(folder / "manifest.json")
        moments = Moments(read_array(folder / "mean.npy"), read_array(folder / "covariance.npy"))
        return Remembered(manifest, Sketch(manifest["sketched"], moments))


def drift_since(project: Project, tracker: Tracker, version: Version) -> dict[str, Any] | None:
    """Return how the data differ from those of the champion, or of the newest other version where there is none.

    None where there is no other version. `known` is false where that version remembers nothing of its data.
    """
    number, champion = version_before(tracker, version)
    if number is None:
        return None
    about: dict[str, Any] = {"version": number, "champion": champion}
    before = recall(tracker, version.model, number)
    if before is None:
        return about | {"known": False}
    manifest = read_manifest(project.prepared)
    told = about | {"known": True, "source": before.manifest["source"], "counts": before.manifest["counts"]}
    if manifest["hash"] == before.manifest["hash"]:
        return told | {"same": True}
    return told | {
        "same": False,
        "pixels": pixels(project, before.sketch),
        "classes": classes(manifest, before.manifest),
    }


def version_before(tracker: Tracker, version: Version) -> tuple[str | None, bool]:
    """Return the number of the version to compare with, and whether it is the champion."""
    champion = registry.alias_number(tracker, version.model, registry.CHAMPION)
    if champion not in (None, version.number):
        return champion, True
    newest_first = (str(one.version) for one in registry.versions(tracker, version.model))
    return next((number for number in newest_first if number != version.number), None), False


def pixels(project: Project, before: Sketch) -> dict[str, Any] | None:
    """Return how far the training images' small pixels have moved, None where colour came or went."""
    found = drift.small(load_split(project.prepared, "train").images)
    if found.shape[1] != len(before.moments.mean):
        return None
    moved = drift.shift(found, before, derive_seed(0, "drift"))
    return {
        "distance": moved.distance,
        "chance": moved.chance,
        "deviation": moved.deviation,
        "changed": moved.changed,
    }


def classes(now: dict[str, Any], before: dict[str, Any]) -> dict[str, Any] | None:
    """Return how the classes' shares of the training images have changed, None where either has no classes."""
    if not (now["classes"] and before["classes"]):
        return None
    counts = (
        dict(zip(manifest["classes"], manifest["class_counts"]["train"], strict=True)) for manifest in (now, before)
    )
    return drift.classes(*counts)
