"""Boosting's own files: the weights of the images that a part is trained on, and the mixtures that the parts end as."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.compute import Runtime
from pipeline.files import read_json, tree_hash, write_array, write_json
from pipeline.params import Family
from pipeline.params.family import BOOSTED
from pipeline.stages._job import Unit, sheet
from pipeline.tracking import Tracker
from pipeline.training.interruption import Interruption
from pipeline.training.schemes.boosting import effective_size, image_weights, mixture_of, uniform_beta
from pipeline.training.schemes.classifier import density_ratios, train_classifier
from pipeline.training.schemes.resampling import resample
from pipeline.weights import load_generator, save_snapshot

WEIGHTS = "weights.npy"


def part_after(parts: Sequence[Unit], part: Unit, runtime: Runtime, interruption: Interruption) -> Unit:
    """Return the unit of the part that follows `parts`, all complete, with the images that it trains on.

    The images' weights are kept beside its checkpoint. An interruption before they are known leaves nothing: the
    classifier, a quarter of a part's budget, is then trained anew.
    """
    # What is delivered is the mixture of all parts: nothing reads averages of one of them.
    part = replace(part, recipe=part.recipe.model_copy(update={"snapshots": 1, "ema_profiles": False}))
    if not parts or part.complete:
        return part
    path = part.folder / WEIGHTS
    if not path.exists():
        mixture, _ = mixture_of([load_generator(before.last_snapshot(), runtime.device) for before in parts])
        for classifier in train_classifier(part.data, mixture, part.recipe, part.config, runtime, part.streams):
            weighed_by = classifier
            if interruption.signal:
                print(f"train {part.name}: stopped while its images were weighed; run it again to go on", flush=True)
                interruption.end()
        ratios = density_ratios(weighed_by, part.data, runtime)
        write_array(path, image_weights(ratios, uniform_beta(len(parts) + 1)))
    weights = np.load(path)
    print(f"train {part.name}: {effective_size(weights) / len(weights):.0%} of the images count", flush=True)
    return replace(part, data=replace(part.data, rows=resample(weights, part.streams)))


def write_mixtures(
    recipe: Family, parts: Sequence[Unit], folder: Path, tracker: Tracker, manifest: dict[str, Any]
) -> Path:
    """Write the family's one member, the mixture of its parts, to `folder`, track it and return where it lies.

    Its snapshots are the mixtures after some of the parts, evenly spaced, the last of all of them; their images seen
    are those of all their parts.
    """
    output = folder / BOOSTED
    shutil.rmtree(output, ignore_errors=True)
    with tracker.child("member", f"{parts[0].family}/{BOOSTED}", key=parts[-1].folder.name) as run:
        run.params(recipe.model_dump(mode="json"))
        run.dataset(manifest)
        rows = history_of(parts)
        run.history(rows)
        for count in stages(len(parts), recipe.snapshots):
            mixture, config = mixture_of([load_generator(part.last_snapshot()) for part in parts[:count]])
            facts = read_json(parts[0].last_snapshot() / "config.json")
            facts = {"family": facts["family"], "member": BOOSTED, "kind": facts["kind"], "loss": facts["loss"]}
            nimg = seen(parts[:count])
            save_snapshot(output / f"{nimg:09d}", config, {"generator": mixture}, **facts, nimg=nimg)
            run.image(sheet(mixture, parts[0].streams), f"samples/{nimg:09d}.png")
        write_json(output / "history.json", rows)
        run.tag(chorus_member=tree_hash(output))
    return output


def stages(parts: int, snapshots: int) -> list[int]:
    """Return after how many parts the mixture is kept: evenly spaced, the last after all; at most one a part."""
    return sorted({max(1, round(parts * k / snapshots)) for k in range(1, snapshots + 1)})


def seen(parts: Sequence[Unit]) -> int:
    """Return how many images these parts saw."""
    return sum(int(part.last_snapshot().name) for part in parts)


def history_of(parts: Sequence[Unit]) -> list[dict[str, float]]:
    """Return the parts' histories as one, by the images that all of them saw.

    `images_share`: to which share of the images, each counting the same, a part's weighted ones amount.
    """
    rows = []
    for index, part in enumerate(parts):
        before, share = seen(parts[:index]), 1.0
        if index:
            weights = np.load(part.folder / WEIGHTS)
            share = effective_size(weights) / len(weights)
        for row in read_json(part.output(part.members[0]) / "history.json"):
            rows.append({**row, "nimg": before + row["nimg"], "images_share": share})
    return rows
