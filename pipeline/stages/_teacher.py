"""Who teaches the students: the fused sampler, and a hash by which it is known again."""

import hashlib
import json
from typing import Any

from pipeline.files import read_json, tree_hash
from pipeline.project import Project

STUDENT, CONTROL = "student", "control"  # what is trained: on the teacher's images, and on real ones


def teacher_recipe(project: Project) -> dict[str, Any]:
    """Return the recipe of the fused sampler."""
    return dict(read_json(project.students / "teacher.json")["recipe"])


def teacher_hash(project: Project) -> str:
    """Return a hash of all that decides the fused sampler's images: its recipe and its networks."""
    recipe = json.dumps(teacher_recipe(project), sort_keys=True)
    return hashlib.sha256(f"{recipe}{tree_hash(project.fused / 'members')}".encode()).hexdigest()
