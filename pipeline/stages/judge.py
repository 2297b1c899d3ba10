"""Score every member and strategy on the `gate` split, by the extractors that took decisions and by the judges."""

import shutil
from typing import Any

import numpy as np
import torch

from pipeline.compute import set_up
from pipeline.data.dataset import load_split
from pipeline.evaluation import store
from pipeline.evaluation.certainty import intervals_of
from pipeline.evaluation.intervals import Estimate
from pipeline.evaluation.pictures import grid, write_png
from pipeline.evaluation.ruler import DECIDES, decisive
from pipeline.files import read_json, write_json
from pipeline.fusion.samplers import draw
from pipeline.project import Project
from pipeline.randomness import derive_seed
from pipeline.recipes import load_sampler
from pipeline.stages._classifiers import ask_classifiers, compared
from pipeline.stages._critic_on_gate import CriticOnGate
from pipeline.stages._examined import Drawn, examine
from pipeline.stages._scale import Scale
from pipeline.stages._students import read_measured
from pipeline.stages._teacher import STUDENT
from pipeline.weights import SCHEMA

SPLIT = "gate"
SHOWN = 64


def run(project: Project) -> None:
    """Write report/metrics.json and the grids in report/figures; every arm is scored on equally many fresh samples."""
    runtime = set_up(project.params.compute)
    reference = store.read_reference(project.reference)
    fused, chosen = read_json(project.fused / "strategies.json"), read_json(project.chosen / "recipe.json")
    names = [*reference["selection"], *reference["judges"]]
    scale = Scale(project, runtime, names).against_split(SPLIT)
    rulers = scale.rulers
    figures = project.report / "figures"
    shutil.rmtree(figures, ignore_errors=True)
    some_real = torch.from_numpy(np.array(load_split(project.prepared, SPLIT).images[:SHOWN]))
    write_png(figures / "real.png", grid(some_real))

    critic = CriticOnGate.of(project, SPLIT, runtime.device)
    arms: list[dict[str, Any]] = []
    drawn: dict[int, Drawn] = {}
    estimates: list[dict[str, Estimate]] = []
    warnings: set[str] = set()
    listed = [*arms_of(fused), *students_of(project)]
    examined = compared(listed, chosen, best_member(fused))
    for arm in listed:
        sampler = load_sampler(arm["recipe"], project.snapshot, runtime.device)
        fresh = derive_seed(project.params.seed, "judge", arm["name"])
        images = draw(sampler, project.params.judge.samples, seed=fresh)
        write_png(figures / arm["kind"] / f"{arm['name'].replace('/', '-')}.png", grid(images[:SHOWN]))
        critic.look(arm["name"], arm["kind"], images)
        found = scale.features(images)
        metrics = scale.metrics(found)
        metrics[DECIDES] = decisive(metrics, [rulers[name] for name in reference["selection"]])
        warnings |= scale.warnings(found)
        estimates.append(scale.estimates(found))
        if arm in examined:
            about = {key: arm[key] for key in ("name", "kind")}
            drawn[examined.index(arm)] = Drawn(about, images, found)
        arms.append({"name": arm["name"], "kind": arm["kind"], "cost": sampler.cost, "metrics": metrics})
        shown = "  ".join(f"{rulers[name].name} {metrics[rulers[name].name]:.3f}" for name in names)
        print(f"judge  {arm['name']:<20}{shown}", flush=True)
    write_json(
        project.report / "metrics.json",
        {
            "schema": SCHEMA,
            "split": SPLIT,
            "samples": project.params.judge.samples,
            "decided_by": fused["decided_by"],
            "judges": reference["judges"],
            "headline": [rulers[name].name for name in reference["judges"]],
            "winner": fused["winner"],
            "shipped": {key: chosen[key] for key in ("kind", "name")},
            "best_member": best_member(fused),
            # Of val against gate, neither of which any extractor has learnt from.
            "floor": reference["floors"]["held_out"],
            "floor_images": [len(store.read_features(project.reference, split, names[0])) for split in ("val", SPLIT)],
            "accuracy": {name: facts["accuracy"] for name, facts in reference["extractors"].items()},
            "warnings": sorted(warnings),
            "critic": critic.facts(),
            "arms": arms,
            "classifiers": ask_classifiers(project, runtime, examined),
            **examine(project, runtime.device, [drawn[place] for place in sorted(drawn)]),
            "intervals": intervals_of(arms, estimates, best_member(fused)),
        },
    )


def arms_of(fused: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what is scored: each member by its snapshot that was nearest on `val`, then each strategy."""
    members = [
        {"name": member, "kind": "member", "recipe": {"kind": "candidate", "id": candidate}}
        for member, candidate in fused["members"].items()
    ]
    strategies = [
        {"name": row["name"], "kind": "strategy", "recipe": row["recipe"]}
        for row in fused["strategies"]
        if "skipped" not in row
    ]
    return members + strategies


def students_of(project: Project) -> list[dict[str, Any]]:
    """Return the students and their controls (as NAME-control), which are scored too whatever is shipped."""
    return [
        {
            "name": name if entry["member"] == STUDENT else f"{name}-{entry['member']}",
            "kind": entry["member"],
            "recipe": {"kind": "candidate", "id": entry["id"]},
        }
        for name in project.params.students
        for entry in read_measured(project, name)["candidates"]
    ]


def best_member(fused: dict[str, Any]) -> str:
    """Return the member that was nearest on `val`: what the fusion has to beat, chosen without a look at `gate`."""
    members: dict[str, str] = fused["members"]
    return min(members, key=lambda member: (fused["pool"][members[member]], member))
