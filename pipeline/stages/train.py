"""Train one family's members and write their snapshots to `models/members/rung1/FAMILY`."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

import pipeline
from pipeline.compute import Runtime, set_up
from pipeline.data.dataset import load_split, read_manifest
from pipeline.errors import ChorusError
from pipeline.files import remove_tree, replace_tree, tree_hash, write_json
from pipeline.models._base import ModelConfig
from pipeline.params import Family
from pipeline.params.family import BOOSTED
from pipeline.pinning.weights import provide
from pipeline.project import FIRST, Project
from pipeline.racing.shares import member_kimg
from pipeline.stages import _failures
from pipeline.stages._boosting import part_after, write_mixtures
from pipeline.stages._job import Job, Unit, span
from pipeline.tracking import Tracker
from pipeline.training.cost import flops_per_image
from pipeline.training.fused import can_fuse
from pipeline.training.interruption import Interruption
from pipeline.training.loop import Data
from pipeline.training.schemes.cascade import refined
from pipeline.training.schemes.resampling import bootstrap
from pipeline.training.streams import Streams

SCHEMA = 1


def run(project: Project, family: str) -> None:
    """Train the family's units one after another.

    What is done lies in the checkpoint folder until the whole family is: a run that was ended at any moment goes on
    from there. On SIGTERM or Ctrl-C the current step is finished, a checkpoint written, and the process exits.
    """
    runtime = set_up(project.params.compute)
    manifest = read_manifest(project.prepared)
    recipe, roster = in_first_rung(project, family, manifest)
    tracker = Tracker(project.root)
    with Interruption() as interruption:
        planned = units(project, family, recipe, manifest, runtime, interruption)
        trained = train_units(planned, runtime, tracker, manifest, interruption)
    done = members_of(trained)
    if recipe.scheme == "boosting":
        sound = [part for part in trained if not part.failed]
        if sound:
            lost = members_of(part for part in trained if part.failed)
            done = {BOOSTED: write_mixtures(recipe, sound, project.checkpoints / family, tracker, manifest), **lost}
        else:
            # Without a first part there is no mixture: its reason is that of the whole.
            done = dict(zip([BOOSTED], done.values(), strict=True))
    deliver(project, family, FIRST, done, roster)


def in_first_rung(project: Project, family: str, manifest: dict[str, Any]) -> tuple[Family, dict[str, Any]]:
    """Return the recipe with its share of the budget as `kimg`, and what the roster says of that."""
    recipe = project.params.families[family]
    roster: dict[str, Any] = {"params": recipe.model_dump(mode="json")}
    if project.params.budget is None:
        return recipe, roster
    flops = mean_flops(recipe, model_config(recipe, manifest))
    kimg = member_kimg(project.params, family, flops)
    return recipe.model_copy(update={"kimg": kimg}), {**roster, "kimg": kimg, "flops_per_image": flops}


def mean_flops(recipe: Family, config: ModelConfig) -> float:
    """Return the operations of a training image, as a mean over the members: those of a cascade cost more and more.

    Of boosting that is a part's training without the classifier that weighs its images.
    """
    later = range(recipe.replicas if recipe.scheme == "cascade" else 1)
    return fmean(flops_per_image(recipe, refined(config, refiners)) for refiners in later)


def train_units(
    units: Iterable[Unit], runtime: Runtime, tracker: Tracker, manifest: dict[str, Any], interruption: Interruption
) -> list[Unit]:
    """Train what is not complete yet, one unit after another; return all of them."""
    trained = []
    for unit in units:
        if unit.failed:
            (reason,) = {fault["reason"] for fault in _failures.failures_in(members_of([unit])).values()}
            print(f"train {unit.name}: failed: {reason}", flush=True)
        elif unit.complete:
            print(f"train {unit.name}: complete since an earlier run", flush=True)
        else:
            train_unit(unit, runtime, tracker, manifest, interruption)
        trained.append(unit)
    return trained


def members_of(trained: Iterable[Unit]) -> dict[str, Path]:
    """Return the folder of each member of complete units."""
    return {member: unit.output(member) for unit in trained for member in unit.members}


def units(
    project: Project,
    family: str,
    recipe: Family,
    manifest: dict[str, Any],
    runtime: Runtime,
    interruption: Interruption,
) -> Iterator[Unit]:
    """Yield the family's units in the order of their training; each is asked for when those before are complete."""
    initial = provide(project, family) if recipe.warm_start else None
    if recipe.warm_start and initial is None:
        print(f"train {family}: {recipe.warm_start} leads to no weights yet; they are drawn", flush=True)
    config = model_config(recipe, manifest)
    data = load_data(project, recipe, runtime)
    raced = bool(project.params.racing.rungs)

    def unit_of(*members: str, first: int = 0, after: Unit | None = None) -> Unit:
        sources = f"{manifest['hash']} {after.folder.name}" if after else str(manifest["hash"])
        folder = project.checkpoints / family / span(members)
        folder /= training_key(project, family, members, recipe, sources)
        streams = Streams(project.params.seed, family, first)
        return Unit(family, members, recipe, config, streams, data, folder, hands_over=raced, initial=initial)

    if train_as_one(project, recipe):
        yield fused(unit_of(*recipe.members))
        return
    match recipe.scheme:
        case "joint":
            yield unit_of(*recipe.members)
        case "independent":
            yield from (unit_of(member, first=replica) for replica, member in enumerate(recipe.members))
        case "bagging":
            for replica, member in enumerate(recipe.members):
                unit = unit_of(member, first=replica)
                yield replace(unit, data=replace(data, rows=bootstrap(len(data.images), unit.streams)))
        case "cascade":
            before: Unit | None = None
            for replica, member in enumerate(recipe.members):
                unit = unit_of(member, first=replica, after=before)
                if before and before.failed:
                    _failures.write_failure(unit.output(member), f"{before.name}, which it refines, failed")
                    before = unit
                else:
                    source = before.last_snapshot() if before else None
                    before = replace(unit, config=refined(config, replica), refined=source)
                    if source:
                        # The weights to start from are a generator's, not a refiner's, which starts and averages anew.
                        before = replace(before, recipe=recipe.model_copy(update={"warm_start": None}), initial=None)
                yield before
        case "boosting":
            parts: list[Unit] = []
            for replica in range(recipe.replicas):
                if parts and parts[-1].failed:
                    return  # the mixture is that of the parts before
                part = unit_of(f"part{replica}", first=replica, after=parts[-1] if parts else None)
                parts.append(part_after(parts, part, runtime, interruption))
                yield parts[-1]


def train_as_one(project: Project, recipe: Family) -> bool:
    """Whether a family's replicas share one state: where asked for. `auto` does not: on CPUs it measured slower.

    Not in a race: its rungs hand over the state of each member by itself.
    """
    return project.params.training.replicas == "fused" and can_fuse(recipe) and not project.params.racing.rungs


def fused(unit: Unit) -> Unit:
    """Return the unit of all replicas with the random numbers, and for bagging the images, of each."""
    streams = replace(unit.streams, replicas=len(unit.members))
    if unit.recipe.scheme == "independent":
        return replace(unit, streams=streams)
    rows = torch.stack([bootstrap(len(unit.data.images), own) for own in streams.parts])
    return replace(unit, streams=streams, data=replace(unit.data, rows=rows))


def train_unit(
    unit: Unit, runtime: Runtime, tracker: Tracker, manifest: dict[str, Any], interruption: Interruption
) -> None:
    """Train one unit, with a tracked run for each of its members; the runs of members that fail end so, the stage not.

    The same parameters, images and code fail again in the same way.
    """
    with suppress(_failures.Failed), ExitStack() as stack:
        names = [f"{unit.family}/{member}" for member in unit.members]
        kind = "part" if unit.recipe.scheme == "boosting" else "member"
        tracked = [stack.enter_context(tracker.child(kind, name, key=unit.folder.name)) for name in names]
        for run in tracked:
            run.params(unit.recipe.model_dump(mode="json"))
            run.dataset(manifest)
        Job(unit, runtime, tracked).train(interruption)
        for run, member in zip(tracked, unit.members, strict=True):
            run.tag(chorus_member=tree_hash(unit.output(member)))


def load_data(project: Project, recipe: Family, runtime: Runtime) -> Data:
    """Return the train split on the device, with its labels where the family is conditional."""
    split = load_split(project.prepared, "train")
    images = torch.from_numpy(np.array(split.images)).to(runtime.device)
    if not recipe.conditional:
        return Data(images)
    return Data(images, torch.from_numpy(np.array(split.labels)).to(runtime.device))


def model_config(recipe: Family, manifest: dict[str, Any]) -> ModelConfig:
    """Return what a family's networks are built from: its recipe, and the shape and classes of the images.

    Raises `ChorusError` for a conditional family on images without classes.
    """
    if recipe.conditional and manifest["class_counts"] is None:
        raise ChorusError("`conditional: true` needs classes, and these images have none: give each class a sub-folder")
    counts = manifest["class_counts"]["train"] if recipe.conditional else []
    return ModelConfig(
        recipe.architecture,
        manifest["channels"],
        manifest["size"],
        recipe.latent,
        recipe.width,
        sample_noise=bool(recipe.sample_noise),
        class_shares=tuple(count / sum(counts) for count in counts),
        dropout=recipe.dropout,
        spectral_norm=recipe.spectral_norm,
        penalised=recipe.regularisers.penalised,
        outputs=recipe.replicas + 1 if recipe.scheme == "joint" else 1,
        discriminators=recipe.discriminators,
        sampling_steps=recipe.sampling_steps,
    )


def training_key(project: Project, family: str, members: Sequence[str], recipe: Family, data: str) -> str:
    """Return a hash of all that decides the weights of a unit: its members, recipe, seed, compute, data and code.

    data: hash of the images, and of what it goes on from or was made from, if anything.
    """
    code = Path(pipeline.__file__).parent
    shared = [
        "stages/train.py",
        "stages/advance.py",
        "stages/distill.py",
        "stages/_job.py",
        "stages/_boosting.py",
        "weights.py",
        "compute.py",
        "randomness.py",
        "data/dataset.py",
        f"models/{recipe.architecture}.py",
    ]
    files = sorted(
        [
            *(file for folder in ("params", "layers", "training") for file in code.glob(f"{folder}/**/*.py")),
            *code.glob("models/_*.py"),
            *(code / name for name in shared),
        ]
    )
    content = {
        "members": f"{family}/{span(members)}",
        "recipe": recipe.model_dump(mode="json", exclude={"replicas", "warm_start"}),
        "initial": recipe.warm_start and recipe.warm_start.content,  # wherever that was found
        "raced": bool(project.params.racing.rungs),
        "seed": project.params.seed,
        "compute": project.params.compute.model_dump(mode="json"),
        "data": data,
        "code": [hashlib.sha256(file.read_bytes()).hexdigest() for file in files],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def deliver(project: Project, family: str, rung: int, done: dict[str, Path], roster: dict[str, Any]) -> None:
    """Put the finished members in place of whatever `models/members/rungN/FAMILY` held.

    Of failed members only the reason goes along, and their checkpoints are dropped; where none failed, all are. roster:
    what `family.json` says of the family beside its name, its members and those that failed.
    """
    staging = project.checkpoints / family / "family"
    shutil.rmtree(staging, ignore_errors=True)
    failed = [member for member, folder in done.items() if (folder / _failures.FILE).exists()]
    for member, folder in done.items():
        # Snapshots from before a member failed may be those of a collapsed generator.
        shutil.copytree(folder, staging / member, ignore=_failures.only_reason if member in failed else None)
    members = [member for member in done if member not in failed]
    content = {"schema": SCHEMA, "family": family, "members": members, "failed": failed, **roster}
    write_json(staging / "family.json", content)
    replace_tree(staging, project.family_folder(family, rung))
    if members and failed:
        # The others stay there complete: the next try at the family trains those that failed and nobody else.
        for member in failed:
            remove_tree(done[member].parent)
    else:
        remove_tree(project.checkpoints / family)
