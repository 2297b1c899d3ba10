"""Choose on val what is shipped, the fused sampler or a student of it; write models/chosen."""

import shutil
from typing import Any

from pipeline.evaluation import store
from pipeline.evaluation.frechet import mean_distance
from pipeline.evaluation.ruler import DECIDES, Real
from pipeline.files import copy_snapshot, read_json, write_json
from pipeline.fusion.choosing import Arm, choose, why_not
from pipeline.fusion.needs import networks_of
from pipeline.project import Project
from pipeline.stages._pool import halves_of_val, relative_features
from pipeline.stages._students import read_measured, remove_former
from pipeline.stages._teacher import CONTROL, STUDENT, teacher_recipe
from pipeline.weights import SCHEMA

STRATEGY = "strategy"


def run(project: Project) -> None:
    """Write `recipe.json` with the networks it needs, and `students.json`: how each student compares.

    Students are measured on the part of val by which the fusion's winner was chosen, with as many images, so their
    distances compare. Being the least of several, the winner's looks a little smaller than it is.
    """
    remove_former(project, "choose")
    measured = {name: read_measured(project, name) for name in project.params.students}
    fused, tolerance = fused_arm(project), project.params.choose.tolerance
    arms = {entry["id"]: arm for entry, arm in student_arms(project, measured)}
    students = {name: arm for name, arm in arms.items() if arm.kind == STUDENT}
    shipped = choose(list(students.values()), fused, tolerance)
    rows = [row_of(arm, arm is shipped, reason(arm, fused, shipped, tolerance)) for arm in [fused, *arms.values()]]
    rows += [
        {"name": name, "kind": STUDENT, "shipped": False, "why": evaluation["skipped"]}
        for name, evaluation in measured.items()
        if "skipped" in evaluation
    ]
    for row in rows:
        shown = f"{DECIDES} {row['distance']:.4f}, {row['bytes']:,} bytes, " if "distance" in row else ""
        print(f"choose  {row['kind']:<10}{row['name']:<18}{shown}{row['why']}", flush=True)
    identity = next((name for name, arm in students.items() if arm is shipped), None)
    content = {"kind": shipped.kind, "name": shipped.name}
    recipe = {"kind": "candidate", "id": identity} if identity else teacher_recipe(project)
    table = {"schema": SCHEMA, "decided_by": DECIDES, "tolerance": tolerance, "shipped": content, "rows": rows}
    write(project, {"schema": SCHEMA, **content, "recipe": recipe}, table)


def fused_arm(project: Project) -> Arm:
    """Return the winner of the fusion with its distance on the part of val that chose it."""
    table = read_json(project.fused / "strategies.json")
    row = next(row for row in table["strategies"] if row["name"] == table["winner"])
    files = [
        project.fused / "members" / name / f"{network}.safetensors"
        for name, networks in networks_of(row["recipe"]).items()
        for network in networks
    ]
    size = sum(file.stat().st_size for file in files)
    evidence = row["evidence"]
    return Arm(table["winner"], STRATEGY, evidence["choose"], size, evidence["cost"], row["classes"])


def student_arms(project: Project, measured: dict[str, Any]) -> list[tuple[dict[str, Any], Arm]]:
    """Return the entry of each student and control that was measured, and its arm."""
    found: list[tuple[dict[str, Any], Arm]] = []
    rulers = store.deciding_rulers(project.reference)
    _, real = halves_of_val(project, rulers)
    for name, evaluation in measured.items():
        for entry in evaluation["candidates"]:
            features = relative_features(rulers, project.student_evaluation / name, entry["id"])
            distance = mean_distance(Real(features).views, real.views)
            costs = entry["bytes"], entry["passes"], entry["classes"]
            found.append((entry, Arm(name, entry["member"], distance, *costs)))
    return found


def reason(arm: Arm, fused: Arm, shipped: Arm, tolerance: float | None) -> str:
    """Say in words what becomes of an arm."""
    if arm is shipped:
        return "shipped"
    if arm.kind == CONTROL:
        return "the same networks trained on the real images"
    if arm.kind == STRATEGY:
        return f"its student {shipped.name} is shipped"
    return why_not(arm, fused, tolerance) or f"{shipped.name} is nearer"


def row_of(arm: Arm, shipped: bool, why: str) -> dict[str, Any]:
    """Return an arm's row of the table."""
    numbers = {"distance": arm.distance, "bytes": arm.size, "passes": arm.passes}
    return {"name": arm.name, "kind": arm.kind, **numbers, "shipped": shipped, "why": why}


def write(project: Project, content: dict[str, Any], table: dict[str, Any]) -> None:
    """Write the stage's output folder, in place of what an earlier run left; the critic goes along."""
    shutil.rmtree(project.chosen, ignore_errors=True)
    find = project.snapshot if content["kind"] == STUDENT else (project.fused / "members").joinpath
    for name, networks in sorted(networks_of(content["recipe"]).items()):
        copy_snapshot(find(name), project.chosen / "members" / name, networks)
    if (project.fused / "critic").is_dir():
        shutil.copytree(project.fused / "critic", project.chosen / "critic")
    write_json(project.chosen / "students.json", table)
    write_json(project.chosen / "recipe.json", content)
