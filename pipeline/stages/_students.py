"""What the stages after the students share: what was measured of them, and what is left of former ones."""

import shutil
from typing import Any

from pipeline.errors import ChorusError
from pipeline.evaluation import store
from pipeline.files import read_json, tree_hash
from pipeline.project import Project
from pipeline.stages._teacher import teacher_hash


def read_measured(project: Project, name: str) -> dict[str, Any]:
    """Return what was measured of a student; raises `ChorusError` where it is of other weights or another teacher."""
    weights = project.student_weights / name
    evaluation = store.read_evaluation(project.student_evaluation / name)
    if evaluation["models_hash"] != tree_hash(weights):
        raise ChorusError(f"student {name}: other weights were measured than models/students holds; run `dvc repro`")
    if read_json(weights / "student.json")["teacher"] != teacher_hash(project):
        raise ChorusError(f"student {name} learnt from another sampler than models/fused holds; run `dvc repro`")
    return evaluation


def remove_former(project: Project, stage: str) -> None:
    """Remove what students no longer in params.yaml left in the folder that the stages depend on, as `stage`."""
    for mark in ("weights/*/student.json", "evaluation/*/evaluation.json"):
        for path in sorted(project.students.glob(mark)):
            if path.parent.name not in project.params.students:
                print(
                    f"{stage}  removes {path.parent.relative_to(project.root)}: not in params.yaml any more", flush=True
                )
                shutil.rmtree(path.parent)
