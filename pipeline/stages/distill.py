"""Train one student on images of the fused sampler, and its control on the real ones: models/students/weights/NAME."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.compute import Runtime, set_up
from pipeline.data.dataset import read_manifest
from pipeline.files import read_array, remove_tree, replacing, write_json
from pipeline.fusion.samplers import Sampler, classes_of
from pipeline.project import Project
from pipeline.randomness import derive_seed
from pipeline.recipes import load_sampler
from pipeline.stages._failures import failures_in, in_words
from pipeline.stages._job import Unit
from pipeline.stages._teacher import CONTROL, STUDENT, teacher_hash, teacher_recipe
from pipeline.stages.train import load_data, members_of, model_config, train_units, training_key
from pipeline.tracking import Tracker
from pipeline.training.interruption import Interruption
from pipeline.training.loop import Data
from pipeline.training.streams import Streams
from pipeline.weights import SCHEMA


def run(project: Project, name: str) -> None:
    """Train the student and its control; a run that was ended goes on from where it was.

    A student that cannot learn from this sampler, or fails in training, is skipped and says why: the fused sampler is
    another one every night, and what it can do must not end the run.
    """
    recipe = project.params.students[name]
    runtime = set_up(project.params.compute)
    manifest = read_manifest(project.prepared)
    sampler = load_sampler(teacher_recipe(project), (project.fused / "members").joinpath, runtime.device)
    about = {"schema": SCHEMA, "student": name, "teacher": teacher_hash(project), "samples": recipe.samples}
    about["params"] = recipe.model_dump(mode="json")
    if recipe.conditional and (reason := why_not(sampler, manifest)):
        print(f"distill {name}: skipped: {reason}", flush=True)
        deliver(project, name, {}, {**about, "skipped": reason})
        return
    pair = units(project, name, manifest, runtime, sampler)
    with Interruption() as interruption:
        trained = train_units(pair, runtime, Tracker(project.root), manifest, interruption)
    done = members_of(trained)
    if failed := in_words(failures_in(done)):
        # One without the other would be no comparison.
        deliver(project, name, {}, {**about, "skipped": f"training failed: {failed}"})
        return
    deliver(project, name, done, about)


def why_not(sampler: Sampler, manifest: dict[str, Any]) -> str | None:
    """Return why a conditional student cannot learn from a sampler's images, None where it can."""
    if not sampler.classes:
        return "it is conditional, and the fused sampler knows no classes to learn from"
    counts = manifest["class_counts"]["train"]
    lacking = [*sampler.lacking, *range(sampler.classes, len(counts))]
    if wanted := [manifest["classes"][label] for label in lacking if counts[label]]:
        return f"it is conditional, and no member of the fused sampler draws {', '.join(wanted)}"
    return None


def units(project: Project, name: str, manifest: dict[str, Any], runtime: Runtime, sampler: Sampler) -> Iterator[Unit]:
    """Yield the student and then its control: the same networks, initial weights, latents and number of steps.

    They differ in the images alone: those of the fused sampler, and the real ones of the train split.
    """
    recipe = project.params.students[name]
    config = model_config(recipe, manifest)
    real = str(manifest["hash"])

    def unit(role: str, source: str, data: Data) -> Unit:
        return Unit(name, (role,), recipe, config, Streams(project.params.seed, name, 0), data, folder(role, source))

    def folder(role: str, source: str) -> Path:
        return project.checkpoints / name / role / training_key(project, name, (role,), recipe, source)

    teacher = f"{real} {teacher_hash(project)}"
    kept = folder(STUDENT, teacher) / "images.npy"
    yield unit(STUDENT, teacher, teacher_data(project, name, runtime, sampler, config.class_shares, kept))
    yield unit(CONTROL, real, load_data(project, recipe, runtime))


def teacher_data(
    project: Project, name: str, runtime: Runtime, sampler: Sampler, class_shares: tuple[float, ...], kept: Path
) -> Data:
    """Return the student's images on the device, with their classes where it is conditional.

    They are drawn once: a run that was ended finds them in `kept`, beside its checkpoint.
    """
    recipe = project.params.students[name]
    manifest = read_manifest(project.prepared)
    seed = derive_seed(project.params.seed, "distill", name)
    labels = classes_of(torch.arange(recipe.samples), class_shares, seed)
    if not kept.exists():
        print(f"distill {name}: drawing {recipe.samples:,} images of the fused sampler", flush=True)
        shape = (manifest["channels"], manifest["size"], manifest["size"])
        write_images(kept, sampler, recipe.samples, shape, seed, labels)
    images = torch.from_numpy(np.array(read_array(kept))).to(runtime.device)
    return Data(images, None if labels is None else labels.to(runtime.device))


def write_images(
    path: Path, sampler: Sampler, n: int, shape: tuple[int, ...], seed: int, labels: Tensor | None
) -> None:
    """Write `n` images as uint8 n×C×H×W, a batch in memory at a time."""
    with replacing(path) as temporary:
        images = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=(n, *shape))
        done = 0
        for batch in sampler.sample(n, seed=seed, labels=labels):
            images[done : done + len(batch)] = batch.numpy()
            done += len(batch)
        images.flush()


def deliver(project: Project, name: str, done: dict[str, Path], about: dict[str, Any]) -> None:
    """Put what was trained in place of whatever the student's folder held; drop the checkpoints."""
    staging = project.checkpoints / name / "delivery"
    shutil.rmtree(staging, ignore_errors=True)
    for role, folder in done.items():
        shutil.copytree(folder, staging / role)
    write_json(staging / "student.json", about)
    target = project.student_weights / name
    remove_tree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(staging, target)
    remove_tree(project.checkpoints / name)
