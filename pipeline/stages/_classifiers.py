"""What fresh classifiers make of the shipped sampler and of the best member; called by the judge stage.

A classifier that tells generated images apart learns from `val`, one that tells classes from `train`; both are asked
about `gate`, on which no decision depends.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.compute import Runtime
from pipeline.data.dataset import Split, load_split, read_manifest
from pipeline.evaluation.classification import classification_accuracy, learnable, learnt_from
from pipeline.evaluation.fresh import Labelled
from pipeline.evaluation.proportion import Proportion
from pipeline.evaluation.twosample import CHANCE, told_apart
from pipeline.fusion.samplers import Sampler, draw
from pipeline.project import Project
from pipeline.randomness import derive_seed
from pipeline.recipes import load_sampler

LEARN, ASK = "val", "gate"
BUDGET = 0.5  # of an own extractor's images, seen by each classifier
REAL = "real images"


def compared(arms: Sequence[dict[str, Any]], shipped: dict[str, Any], best_member: str) -> list[dict[str, Any]]:
    """Return the arm that is shipped and the best member, once where they are one recipe."""
    first = next(arm for arm in arms if (arm["kind"], arm["name"]) == (shipped["kind"], shipped["name"]))
    member = next(arm for arm in arms if (arm["kind"], arm["name"]) == ("member", best_member))
    return [first] if first["recipe"] == member["recipe"] else [first, member]


def ask_classifiers(project: Project, runtime: Runtime, arms: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the two-sample tests and the classification accuracies of these arms, as `classifiers` of metrics.json."""
    samplers = [load_sampler(arm["recipe"], project.snapshot, runtime.device) for arm in arms]
    named = [
        ({key: arm[key] for key in ("name", "kind")}, sampler) for arm, sampler in zip(arms, samplers, strict=True)
    ]
    kimg = project.params.reference.kimg * BUDGET
    return {
        "kimg": kimg,
        "two_sample": two_samples(project, runtime, named, kimg),
        "classification": classifications(project, runtime, named, kimg),
    }


def two_samples(
    project: Project, runtime: Runtime, arms: Sequence[tuple[dict[str, str], Sampler]], kimg: float
) -> list[dict[str, Any]]:
    """Return one row an arm, and one of real images in the place of generated ones: what chance alone gives.

    Each classifier learns from `val` against one part of a draw and is asked about `gate` against the other part, at
    most `judge.samples` of each.
    """
    splits = {name: load_split(project.prepared, name) for name in ("train", LEARN, ASK)}
    counts = [min(len(splits[name]), project.params.judge.samples) for name in (LEARN, ASK)]
    fit, held_out = (on_device(splits[name], slice(n), runtime) for name, n in zip((LEARN, ASK), counts, strict=True))
    rows = []
    for about, sampler in [*arms, ({"name": REAL, "kind": "real"}, None)]:
        seed = derive_seed(project.params.seed, "two-sample", about["kind"], about["name"])
        if sampler is None:
            others = on_device(splits["train"], slice(sum(counts)), runtime)
        else:
            others = draw(sampler, sum(counts), seed=seed).to(runtime.device)
        # Fewer real ones than wanted are divided in the same ratio.
        first = min(max(len(others) * counts[0] // sum(counts), 1), len(others) - 1)
        found = told_apart((fit, others[:first]), (held_out, others[first:]), kimg=kimg, seed=seed)
        row = {**about, "images": found.images, **found.to_json(), "p_value": found.p_value(CHANCE)}
        says = f"{found.share:.1%} of {found.images}, by chance 50%"
        print(f"judge  {about['name']:<20}a fresh classifier tells generated from real ones: {says}", flush=True)
        rows.append(row)
    return rows


def classifications(
    project: Project, runtime: Runtime, arms: Sequence[tuple[dict[str, str], Sampler]], kimg: float
) -> dict[str, Any]:
    """Return what classifiers learn from the arms' images of each class, or why an arm has no part in it.

    Each learns from as many generated images as real ones, of the same classes; `real` is missing where no arm is
    asked.
    """
    names = read_manifest(project.prepared)["classes"] or ()
    classes = len(names)
    reasons = [why_not(sampler, names) for _, sampler in arms]
    if all(reasons):
        return {"rows": [{**about, "skipped": why} for (about, _), why in zip(arms, reasons, strict=True)]}
    train = load_split(project.prepared, "train")
    real = labelled(train, slice(learnable(len(train), kimg)), runtime)
    asked = load_split(project.prepared, ASK)
    held_out = labelled(asked, slice(len(asked)), runtime)
    first_weights = derive_seed(project.params.seed, "classification")
    of_real = learnt_from(real, held_out, classes, kimg=kimg, seed=first_weights)
    rows: list[dict[str, Any]] = []
    for (about, sampler), why in zip(arms, reasons, strict=True):
        if why:
            rows.append({**about, "skipped": why})
            continue
        seed = derive_seed(project.params.seed, "classification", about["kind"], about["name"])
        images = draw(sampler, len(real), seed=seed, labels=real.labels.cpu()).to(runtime.device)
        generated = Labelled(images, real.labels)
        row = classification_accuracy(real, generated, held_out, of_real, classes, kimg=kimg, seed=first_weights)
        shown = f"{row['generated']['share']:.1%}, with as many real ones {row['both']['share']:.1%}"
        says = f"{shown}, real ones alone {of_real.mean():.1%}"
        print(f"judge  {about['name']:<20}classes learnt from generated images: {says}", flush=True)
        rows.append({**about, **row})
    return {
        "images": len(real),
        "held_out": len(held_out),
        "real": Proportion.of(of_real).to_json(),
        "rows": rows,
    }


def why_not(sampler: Sampler, names: Sequence[str]) -> str | None:
    """Return why nothing can be learnt about the classes of these names from a sampler's images, None where it can."""
    if len(names) < 2:
        return "the images have no classes"
    if sampler.classes != len(names):
        return "its members are unconditional: it cannot be asked for a class"
    if sampler.lacking:
        return f"no member draws {', '.join(names[label] for label in sampler.lacking)}"
    return None


def on_device(split: Split, rows: slice, runtime: Runtime) -> Tensor:
    """Return a stretch of a split's images, uint8 N×C×S×S; rows come in the order of their hashes, so it is fair."""
    return torch.from_numpy(np.array(split.images[rows])).to(runtime.device)


def labelled(split: Split, rows: slice, runtime: Runtime) -> Labelled:
    """Return a stretch of a split's images with their classes."""
    assert split.labels is not None
    return Labelled(on_device(split, rows, runtime), torch.from_numpy(np.array(split.labels[rows])).to(runtime.device))
