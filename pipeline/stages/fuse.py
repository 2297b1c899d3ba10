"""Fit every strategy on one part of `val`, choose on the other, and write the winner with the weights it needs."""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from torch import Tensor

from pipeline.compute import Runtime, set_up
from pipeline.errors import ChorusError
from pipeline.evaluation import store
from pipeline.evaluation.extractors import load_extractors
from pipeline.evaluation.frechet import mean_distance
from pipeline.evaluation.ruler import DECIDES, views
from pipeline.files import write_json
from pipeline.fusion.kinds import networks_of
from pipeline.fusion.samplers import draw
from pipeline.fusion.strategies._base import Fusion, NotApplicableError, Problem, strategy
from pipeline.project import Project
from pipeline.racing.branches import Branching
from pipeline.randomness import derive_seed
from pipeline.recipes import EXTRACTORS, load_sampler
from pipeline.stages._material import material_of
from pipeline.stages._pool import halves_of_val, read_pool, remove_former, without_worse_siblings
from pipeline.weights import SCHEMA, copy_snapshot, save_companion


def run(project: Project) -> None:
    """Write models/fused: `strategies.json` (a row for each strategy), `recipe.json` and the winner's weights, and the
    networks that strategies made.

    `models/students/teacher.json` names the winner for those that learn from it.
    """
    runtime = set_up(project.params.compute)
    remove_former(project, "fuse")
    rulers = store.deciding_rulers(project.reference)
    fit, choose = halves_of_val(project, rulers)
    pool, siblings = without_worse_siblings(project, read_pool(project, rulers), fit)
    for found in siblings:
        verdict = "kept" if found.kept else "left out"
        compared = f"{DECIDES} {found.siblings:.4f} with them, {found.plain:.4f} with plain continuations"
        print(f"fuse  siblings in {found.family} {verdict}: {compared}", flush=True)
    seed = derive_seed(project.params.seed, "fuse", "fit")
    problem = Problem.of(pool, fit, project.params.fusion, seed, material_of(project, runtime), rulers)
    extractors = load_extractors(project.reference, [r.extractor for r in rulers], runtime.device, project.weights)

    def score(images: Tensor) -> float:
        features = {name: extractor.features(images).values for name, extractor in extractors.items()}
        return mean_distance(views(rulers, features), choose.views)

    shutil.rmtree(project.fused, ignore_errors=True)
    rows = []
    for name in project.params.fusion.strategies:
        row = try_strategy(project, runtime, name, problem, score)
        verdict = (
            row.get("skipped") or f"{DECIDES} {row['evidence']['choose']:.4f} at {row['evidence']['cost']:g} passes"
        )
        print(f"fuse  {name:<18}{verdict}", flush=True)
        rows.append(row)
    scored = [row for row in rows if "skipped" not in row]
    if not scored:
        reasons = "; ".join(f"{row['name']}: {row['skipped']}" for row in rows)
        raise ChorusError(f"no strategy in fusion.strategies applies ({reasons}); add 'best'")
    # Equal distances go to the cheaper sampler.
    winner = min(scored, key=lambda row: (row["evidence"]["choose"], row["evidence"]["cost"]))
    print(f"fuse  the winner on val is {winner['name']}", flush=True)
    write(project, problem, rows, winner, siblings)


def try_strategy(
    project: Project, runtime: Runtime, name: str, problem: Problem, score: Callable[[Tensor], float]
) -> dict[str, Any]:
    """Return a strategy's row: its recipe, and the score of fresh samples on the part of val that it never saw."""
    try:
        fusion = strategy(name)(problem)
    except NotApplicableError as reason:
        return {"name": name, "skipped": str(reason)}
    write_companions(project, fusion)
    sampler = load_sampler(fusion.recipe, project.snapshot, runtime.device)
    images = draw(sampler, project.params.evaluation.samples, seed=derive_seed(project.params.seed, "fuse", name))
    evidence = {**fusion.evidence, "choose": score(images), "cost": sampler.cost, "samples": len(images)}
    return {"name": name, "recipe": fusion.recipe, "classes": sampler.classes, "evidence": evidence}


def write_companions(project: Project, fusion: Fusion) -> None:
    """Write the networks that a strategy made, and a copy of each extractor that its recipe needs."""
    for name in networks_of(fusion.recipe):
        if own := fusion.companions.get(name):
            save_companion(project.snapshot(name), own.config, own.network)
        elif name.startswith(f"{EXTRACTORS}/"):
            copy_snapshot(project.reference / name, project.snapshot(name), {"model"})


def write(
    project: Project,
    problem: Problem,
    rows: list[dict[str, Any]],
    winner: dict[str, Any],
    siblings: list[Branching],
) -> None:
    """Write the stage's output folder beside the networks that strategies made."""
    for name, networks in sorted(networks_of(winner["recipe"]).items()):
        copy_snapshot(project.snapshot(name), project.fused / "members" / name, networks)
    write_json(
        project.fused / "strategies.json",
        {
            "schema": SCHEMA,
            "decided_by": DECIDES,
            "winner": winner["name"],
            "pool": {candidate.id: problem.distances[candidate.id] for candidate in problem.pool},
            "members": {candidate.member: candidate.id for candidate in problem.best_of_each_member()},
            "siblings": [{**asdict(found), "kept": found.kept} for found in siblings],
            "strategies": rows,
        },
    )
    content = {"schema": SCHEMA, "strategy": winner["name"], "recipe": winner["recipe"]}
    write_json(project.fused / "recipe.json", content)
    write_json(project.students / "teacher.json", content)
