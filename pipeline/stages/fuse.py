"""Fit every strategy on one part of `val`, choose on the other, and write the winner with the weights it needs."""

import shutil
from dataclasses import asdict
from typing import Any

from pipeline.compute import Runtime, set_up
from pipeline.errors import ChorusError, PassingError
from pipeline.evaluation import store
from pipeline.evaluation.ruler import DECIDES, few_for
from pipeline.files import copy_snapshot, write_json
from pipeline.fusion.choice import Entrant, choose, verdict
from pipeline.fusion.diversity import diversity, plain_mixtures
from pipeline.fusion.needs import networks_of
from pipeline.fusion.samplers import draw
from pipeline.fusion.selection import select
from pipeline.fusion.strategies._base import Fusion, NotApplicableError, Problem, strategy
from pipeline.params import AUTO
from pipeline.params import Fusion as Settings
from pipeline.project import Project
from pipeline.randomness import derive_seed
from pipeline.recipes import EXTRACTORS, load_sampler
from pipeline.stages._critic import write_critic
from pipeline.stages._material import material_of
from pipeline.stages._pool import halves_of_val, read_pool, remove_former, without_worse_siblings
from pipeline.stages._scoring import Scorer
from pipeline.weights import SCHEMA, copy_variant, save_companion


def run(project: Project) -> None:
    """Write models/fused: `strategies.json` (a row for each strategy), `recipe.json` and the winner's weights, and the
    networks that strategies made; and `critic`, the members' discriminators as one judge of images.

    `models/students/teacher.json` names the winner for those that learn from it.
    """
    runtime = set_up(project.params.compute)
    remove_former(project, "fuse")
    rulers = store.deciding_rulers(project.reference)
    fit, held_out = halves_of_val(project, rulers)
    fewer = min(fit, held_out, key=len)
    if few := few_for(rulers, fewer.features):
        remedy = "add images, bring fusion.fit_fraction nearer to 0.5, or lower evaluation.dims"
        print(f"fuse  warning: {len(fewer)} images of val are few for {', '.join(few)}: {remedy}", flush=True)
    pool, siblings = without_worse_siblings(project, read_pool(project, rulers), fit)
    for found in siblings:
        verdict = "kept" if found.kept else "left out"
        compared = f"{DECIDES} {found.siblings:.4f} with them, {found.plain:.4f} with plain continuations"
        print(f"fuse  siblings in {found.family} {verdict}: {compared}", flush=True)
    seed = derive_seed(project.params.seed, "fuse", "fit")
    scorer = Scorer.load(project, runtime)
    material = material_of(project, runtime, rulers, scorer.extractors)
    whole = Problem.of(pool, fit, project.params.fusion, seed, material, rulers, held_out)
    problem, selection = select(whole)
    if len(problem.pool) < len(pool):
        print(f"fuse  rule {selection.rule} keeps {len(problem.pool)} of {len(pool)} candidates", flush=True)

    shutil.rmtree(project.fused, ignore_errors=True)
    rows, entrants = [], []
    for name in project.params.fusion.strategies:
        row, entrant = try_strategy(project, runtime, name, problem, scorer)
        print(f"fuse  {name:<18}{row.get('skipped') or in_short(row['evidence'])}", flush=True)
        rows.append(row)
        entrants += [entrant] if entrant else []
    winner = pick(project.params.fusion, rows, entrants)
    members = [candidate.id for candidate in problem.best_of_each_member()]
    facts = {
        "siblings": [{**asdict(found), "kept": found.kept} for found in siblings],
        "selection": asdict(selection),
        "diversity": diversity(problem, members, plain_mixtures(rows)),
    }
    write(project, whole, rows, winner, facts)
    write_critic(project, problem)


def pick(settings: Settings, rows: list[dict[str, Any]], entrants: list[Entrant]) -> dict[str, Any]:
    """Return the winner's row, and write into each row how the strategy came out.

    Raises `ChorusError` where none applies, or that does not which params.yaml wants.
    """
    skipped = {row["name"]: row["skipped"] for row in rows if "skipped" in row}
    if not entrants:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise ChorusError(f"no strategy in fusion.strategies applies ({reasons}); add 'best'")
    if settings.strategy in skipped:
        raise ChorusError(
            f"fusion.strategy = '{settings.strategy}' does not apply: {skipped[settings.strategy]}; "
            f"choose another one, or '{AUTO}'"
        )
    if settings.strategy == AUTO:
        winner = choose(entrants)
        print(f"fuse  the winner on val is {winner.name}", flush=True)
    else:
        (winner,) = (entrant for entrant in entrants if entrant.name == settings.strategy)
        print(f"fuse  fusion.strategy wants {winner.name}; val would choose {choose(entrants).name}", flush=True)
    for row, entrant in zip((row for row in rows if "skipped" not in row), entrants, strict=True):
        decided = settings.strategy == AUTO
        row["why"] = verdict(entrant, winner, entrants) if decided else "fusion.strategy names the winner"
    return next(row for row in rows if row["name"] == winner.name)


def in_short(evidence: dict[str, Any]) -> str:
    """Return a row's outcome for the terminal."""
    noise = "" if evidence["noise"] is None else f" ± {evidence['noise']:.4f}"
    return f"{DECIDES} {evidence['choose']:.4f}{noise} at {evidence['cost']:g} passes"


def try_strategy(
    project: Project, runtime: Runtime, name: str, problem: Problem, scorer: Scorer
) -> tuple[dict[str, Any], Entrant | None]:
    """Return a strategy's row, and what takes part in the choice where it applies and its sampler draws images.

    It is measured by fresh samples on the part of val that it never saw.
    """
    try:
        fusion = strategy(name)(problem)
        write_networks(project, fusion)
        sampler = load_sampler(fusion.recipe, project.snapshot, runtime.device)
        images = draw(sampler, project.params.evaluation.samples, seed=derive_seed(project.params.seed, "fuse", name))
    except NotApplicableError as reason:
        return {"name": name, "skipped": str(reason)}, None
    except PassingError:
        raise
    except ChorusError as fault:
        # One latent in many may give what is no number, and averaged weights may put out nothing else: that is no
        # reason to end what the others do.
        return {"name": name, "skipped": f"it draws no images: {fault}"}, None
    score = scorer.score(images)
    evidence = {**fusion.evidence, "choose": score.distance, "noise": score.noise, "cost": sampler.cost}
    row = {"name": name, "recipe": fusion.recipe, "classes": sampler.classes}
    row["evidence"] = evidence | {"samples": len(images)}
    return row, Entrant(name, sampler.cost, score.distance, score.estimates)


def write_networks(project: Project, fusion: Fusion) -> None:
    """Write the networks that a strategy made, and a copy of each extractor that its recipe needs."""
    for name, made in fusion.snapshots.items():
        copy_variant(project.snapshot(made.source), project.fused / name, made.generator)
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
    facts: dict[str, Any],
) -> None:
    """Write the stage's output folder beside the networks that strategies made; facts: what else the table tells."""
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
            **facts,
            "strategies": rows,
        },
    )
    content = {"schema": SCHEMA, "strategy": winner["name"], "recipe": winner["recipe"]}
    write_json(project.fused / "recipe.json", content)
    write_json(project.students / "teacher.json", content)
