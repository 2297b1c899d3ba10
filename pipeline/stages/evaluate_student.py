"""Measure one student and its control on `val` as candidates are; write models/students/evaluation/NAME."""

import shutil
from pathlib import Path
from typing import Any

from pipeline.evaluation import store
from pipeline.files import read_json, tree_hash, write_json
from pipeline.fusion.samplers import CandidateSampler
from pipeline.project import Project
from pipeline.stages.evaluate import log_to_members, measure_all
from pipeline.weights import load_generator


def run(project: Project, name: str) -> None:
    """Write `evaluation.json` beside the features: distance, classes, passes an image and bytes of each network.

    One that was skipped has no candidates, and the reason.
    """
    weights, folder = project.student_weights / name, project.student_evaluation / name
    shutil.rmtree(folder, ignore_errors=True)
    about = read_json(weights / "student.json")
    found = [f"{name}/{path.parent.parent.name}/{path.parent.name}" for path in sorted(weights.glob("*/*/config.json"))]
    entries = measure_all(project, found, weights.parent, folder) if found else []
    content = {
        "schema": store.SCHEMA,
        "student": name,
        "models_hash": tree_hash(weights),
        "samples": project.params.evaluation.samples,
        "candidates": [entry | facts_of(weights.parent / entry["id"]) for entry in entries],
    }
    write_json(folder / "evaluation.json", content | {key: about[key] for key in ("skipped",) if key in about})
    log_to_members(project, weights, entries)


def facts_of(snapshot: Path) -> dict[str, Any]:
    """Return what a network costs: bytes of its weights, and passes an image."""
    sampler = CandidateSampler(load_generator(snapshot)[0])
    size = (snapshot / "generator.safetensors").stat().st_size
    return {"bytes": size, "passes": sampler.cost}
