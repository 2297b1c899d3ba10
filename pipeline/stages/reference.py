"""Train the extractors, featurise the real images, and write data/reference."""

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.compute import Runtime, set_up
from pipeline.data.dataset import Split, load_split, read_manifest
from pipeline.errors import ChorusError
from pipeline.evaluation import store
from pipeline.evaluation.extractors import Extractor, own_extractor, published_extractor, save_own, save_published
from pipeline.evaluation.features import Features
from pipeline.evaluation.metrics import measure, warnings_of
from pipeline.evaluation.own import OWN, learn, rows_to_learn_from
from pipeline.evaluation.ruler import DECIDES, Ruler, choose_dims, decisive, fit_ruler
from pipeline.files import write_json
from pipeline.params import conflict
from pipeline.progress import Progress
from pipeline.project import Project
from pipeline.randomness import derive_seed

SPLITS = ("train", "val", "gate")  # `test` stays closed
REPORT_SECONDS = 5.0


def run(project: Project) -> None:
    """Make every extractor that decides or judges, and everything about the real images that is measured against."""
    runtime = set_up(project.params.compute)
    manifest = read_manifest(project.prepared)
    splits = {name: load_split(project.prepared, name) for name in SPLITS}
    check_counts(splits, project.params.evaluation.neighbours)
    classes = len(manifest["classes"] or ())
    labelled = classes > 1
    selection, judges = project.params.reference.deciding(labelled), project.params.reference.judging(labelled)
    if complaint := conflict(selection, judges):
        raise ChorusError(f"params.yaml: reference: {complaint}")
    shutil.rmtree(project.reference, ignore_errors=True)
    for split, data in splits.items():
        if labelled and data.labels is not None:
            store.write_labels(project.reference, split, data.labels)
    extractors: dict[str, Any] = {}
    rulers: dict[str, Any] = {}
    floors: dict[str, dict[str, float]] = {"val": {}, "held_out": {}}
    deciding: list[Ruler] = []
    warnings: list[str] = []
    for name in (*selection, *judges):
        extractor = make_extractor(project, runtime, name, splits["train"], classes)
        real = featurise(project.reference, extractor, splits)
        fewest = min(len(real["val"]) // 2, project.params.evaluation.samples)
        dims = choose_dims(project.params.evaluation.dims, real["val"].values.shape[1], fewest)
        ruler = fit_ruler(name, real["train"].values, dims)
        store.write_ruler(project.reference, ruler)
        accuracy = accuracy_of(real["val"], splits["val"]) if name in OWN and OWN[name].labelled else None
        extractors[name] = {"dims": real["val"].values.shape[1], "accuracy": accuracy, "hash": extractor.hash}
        rulers[name] = {"name": ruler.name, "dims": dims, "spread": ruler.spread}
        deciding += [ruler] * (name in selection)
        for against, floor in floors_of(project, real, ruler).items():
            floors[against] |= floor
        warnings += warnings_of(real["val"], real["gate"], ruler)
        says = f"{len(real['val'].values[0])} features" + (f", {accuracy:.1%} of val right" if accuracy else "")
        print(f"reference  {name}: {says}; real images at {ruler.name} {floors['val'][ruler.name]:.3f}", flush=True)
    for floor in floors.values():
        floor[DECIDES] = decisive(floor, deciding)
    write_json(
        project.reference / "reference.json",
        {
            "schema": store.SCHEMA,
            "data": manifest["hash"],
            "labelled": labelled,
            "selection": list(selection),
            "judges": list(judges),
            "extractors": extractors,
            "rulers": rulers,
            "floors": floors,
            "warnings": warnings,
        },
    )


def check_counts(splits: Mapping[str, Split], neighbours: int) -> None:
    """Raise `ChorusError` where a split is too small for any metric."""
    for name, split in splits.items():
        if len(split) <= max(neighbours, 1):
            raise ChorusError(
                f"{name} has {len(split)} images; precision and recall with evaluation.neighbours = {neighbours} need "
                f"at least {max(neighbours, 1) + 1}: add images, or give {name} a larger share in data.splits"
            )


def make_extractor(project: Project, runtime: Runtime, name: str, train: Split, classes: int) -> Extractor:
    """Train and save one of ours, or load one of torch-fidelity's."""
    folder, params = project.reference / "extractors" / name, project.params
    if name not in OWN:
        extractor = published_extractor(name, project.weights.get(name), runtime.device)
        save_published(folder, extractor)
        return extractor
    rows = rows_to_learn_from(len(train), params.reference.kimg, params.seed).numpy()
    images = torch.from_numpy(np.array(train.images[rows])).to(runtime.device)
    labels = None if train.labels is None else torch.from_numpy(np.array(train.labels[rows])).to(runtime.device)
    config, network = learn(
        name,
        images,
        labels,
        classes,
        kimg=params.reference.kimg,
        seed=params.seed,
        progress=progress_line(name, params.reference.kimg),
    )
    save_own(folder, config, network)
    return own_extractor(name, config, network, runtime.device)


def progress_line(name: str, kimg: float) -> Callable[[int, float], None]:
    """Return a callback that prints how far an extractor is, every few seconds."""
    began = last = time.monotonic()

    def show(seen: int, loss: float) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= REPORT_SECONDS:
            last, rate = now, seen / (now - began)
            left = int(max(0.0, kimg * 1000 - seen) / rate)
            what = f"reference {name}"
            print(Progress(what, seen / 1000, kimg, "kimg", rate, "img", left, f"loss {loss:.3f}"), flush=True)

    return show


def featurise(reference: Path, extractor: Extractor, splits: Mapping[str, Split]) -> dict[str, Features]:
    """Write and return the features of the real images of each split."""
    real = {split: extractor.features(data.images) for split, data in splits.items()}
    for split, features in real.items():
        store.write_features(reference / "features" / split / extractor.name, features)
    return real


def accuracy_of(features: Features, split: Split) -> float:
    """Return the share of images that a classifier puts into their class."""
    assert features.logits is not None
    assert split.labels is not None
    return float((features.logits.argmax(1) == split.labels).mean())


def floors_of(project: Project, real: Mapping[str, Features], ruler: Ruler) -> dict[str, dict[str, float]]:
    """Return what real images measure against real ones: no generator can be expected below.

    val: as many train images as a candidate draws (or all), against val, as candidates are measured. held_out: val
    against gate, neither of which any extractor has learnt from.
    """
    evaluation = project.params.evaluation
    random = np.random.default_rng(derive_seed(project.params.seed, "reference", "floor"))
    train = real["train"].take(random.permutation(len(real["train"]))[: evaluation.samples])
    seed = derive_seed(project.params.seed, "reference", "floor", ruler.extractor)
    pairs = {"val": (train, real["val"]), "held_out": (real["val"], real["gate"])}
    return {
        against: measure(first, second, ruler, neighbours=evaluation.neighbours, seed=seed)
        for against, (first, second) in pairs.items()
    }
