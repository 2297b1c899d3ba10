"""What the judge tells of the shipped sampler and of the best member alone: classes they cover, and copies."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.dataset import load_split, read_manifest
from pipeline.evaluation import store
from pipeline.evaluation.classes import class_shares, coverage_by_class
from pipeline.evaluation.features import Features
from pipeline.evaluation.memorisation import Memorisation, memorisation
from pipeline.evaluation.pictures import grid, write_png
from pipeline.project import Project
from pipeline.randomness import derive_seed

HELD_OUT, FRESH = "gate", "val"  # FRESH takes the place of generated images in the row of real ones
REAL: Mapping[str, str] = {"name": "real images", "kind": "real"}
PAIRS = 32  # of an image and the training image nearest to it, in the picture


@dataclass(frozen=True)
class Drawn:
    """An arm's fresh images (uint8 N×C×S×S) and their features by extractor; about: its name and kind."""

    about: Mapping[str, str]
    images: Tensor
    features: Mapping[str, Features]


def examine(project: Project, device: torch.device, drawn: Sequence[Drawn]) -> dict[str, Any]:
    """Return `classes` and `memorisation` of metrics.json; write a picture of pairs for each arm."""
    return {"classes": classes(project, drawn), "memorisation": copies(project, device, drawn)}


def classes(project: Project, drawn: Sequence[Drawn]) -> dict[str, Any] | None:
    """Return each arm's coverage of each class and how often it draws it; None where the images have no classes.

    In the features of the first judge that tells the classes apart, else of the first judge, and then without shares.
    The row of real images has `val` in the place of generated images.
    """
    reference, labels = store.read_reference(project.reference), store.read_labels(project.reference, HELD_OUT)
    if labels is None:
        return None
    names = list(read_manifest(project.prepared)["classes"])
    able = [name for name in reference["judges"] if reference["extractors"][name]["accuracy"] is not None]
    judge = (able or reference["judges"])[0]
    real = store.read_features(project.reference, HELD_OUT, judge)
    seed, neighbours = derive_seed(project.params.seed, "judge", judge), project.params.evaluation.neighbours
    arms = [(REAL, store.read_features(project.reference, FRESH, judge))]
    arms += [(arm.about, arm.features[judge]) for arm in drawn]
    rows = [
        {
            **about,
            "coverage": coverage_by_class(features, real, labels, len(names), neighbours=neighbours, seed=seed),
            "share": class_shares(features, len(names)) if able else None,
        }
        for about, features in arms
    ]
    counts = np.bincount(labels, minlength=len(names)).tolist()
    return {"judge": judge, "neighbours": neighbours, "names": names, "counts": counts, "rows": rows}


def copies(project: Project, device: torch.device, drawn: Sequence[Drawn]) -> list[dict[str, Any]]:
    """Return how near each arm's images are to the training images, and how near real images are that nobody saw.

    Writes report/figures/nearest/NAME.png: the images likeliest to be copies, each with the nearest training image on
    its right.
    """
    train, held_out, fresh = (load_split(project.prepared, name).images for name in ("train", HELD_OUT, FRESH))
    real = torch.from_numpy(np.array(fresh[: project.params.judge.samples]))
    rows = [{**REAL, **told(memorisation(real, train, held_out, device))}]
    for arm in drawn:
        found = memorisation(arm.images, train, held_out, device)
        order = found.relative.argsort(stable=True)[:PAIRS]
        beside = torch.from_numpy(np.array(train[found.nearest[order].numpy()]))
        pairs = torch.cat([arm.images[order], beside], 3)
        name = arm.about["name"].replace("/", "-")
        write_png(project.report / "figures" / "nearest" / f"{name}.png", grid(pairs, columns=4))
        rows.append({**arm.about, **told(found)})
        closest = found.closest_in_train
        says = f"training images nearest to {closest.value:.1%} of its closest, by chance {closest.by_chance:.1%}"
        print(f"judge  {arm.about['name']:<20}{says}", flush=True)
    return rows


def told(found: Memorisation) -> dict[str, Any]:
    """Return the numbers of a memorisation."""
    return {
        "authentic": found.authentic,
        "in_train": asdict(found.in_train),
        "closest_in_train": asdict(found.closest_in_train),
        "distance_ratio": found.distance_ratio,
        "suspicious": found.suspicious,
    }
