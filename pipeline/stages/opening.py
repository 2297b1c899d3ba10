"""Open the `test` split: score every arm on images that nothing has looked at, and write down who did it and why.

No stage: `python -m pipeline judge --split test --by NAME --why TEXT`. Each opening wears the split out a little, for
whoever decides afterwards has seen its numbers; so it is written down before the first image is read, in a file that is
committed and in MLflow. The numbers are printed and kept with the run; nothing reads them.
"""

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline import registry
from pipeline.compute import Runtime, set_up
from pipeline.data.dataset import load_split, read_manifest
from pipeline.evaluation import store
from pipeline.evaluation.certainty import intervals_of
from pipeline.evaluation.ruler import DECIDES, decisive
from pipeline.files import read_json, write_json
from pipeline.fusion.samplers import draw
from pipeline.lineage import read_lineage
from pipeline.project import Project
from pipeline.randomness import derive_seed
from pipeline.recipes import load_sampler
from pipeline.report import certainty
from pipeline.signed import check_signed, moment
from pipeline.stages._scale import Scale
from pipeline.stages.judge import arms_of, best_member, students_of
from pipeline.tracking import Tracker
from pipeline.weights import SCHEMA

SPLIT = "test"
KIND = "opening"


def run(project: Project, by: str, why: str) -> None:
    """Score members, strategies and students on `test`; raises `ChorusError` where nobody signs for it."""
    check_signed(by, why)
    runtime = set_up(project.params.compute)
    fused, chosen = read_json(project.fused / "strategies.json"), read_json(project.chosen / "recipe.json")
    with registry.packed(project.chosen) as (_, content):
        pass
    lineage, tracker = read_lineage(project.root), Tracker(project.root)
    shipped = {key: chosen[key] for key in ("kind", "name")}
    with tracker.apart(KIND, f"{SPLIT} opened by {by.strip()}", key=content) as opened:
        entry = {
            "when": moment(time.time()),
            "by": by.strip(),
            "why": why.strip(),
            "commit": lineage.commit,
            "dirty": lineage.dirty,
            "data": read_manifest(project.prepared)["hash"],
            "content": content,
            "run": opened.id,
        }
        append(project.openings, entry)
        opened.tag(**{f"chorus_{name}": value for name, value in entry.items()})
        metrics = score(project, runtime, [*arms_of(fused), *students_of(project)], best_member(fused))
        metrics |= {"shipped": shipped, "best_member": best_member(fused)}
        opened.metrics(
            {f"{name}/{arm['name']}": arm["metrics"][name] for arm in metrics["arms"] for name in metrics["headline"]}
        )
        with tempfile.TemporaryDirectory(prefix="chorus-") as temporary:
            write_json(Path(temporary) / "test.json", metrics)
            opened.file(Path(temporary) / "test.json")
    print(f"opening  {certainty.sentence(metrics)}", flush=True)
    print(
        f"opening  written down in {project.openings.name}, which is to be committed, and in MLflow's run {opened.id}",
        flush=True,
    )


def append(path: Path, entry: dict[str, Any]) -> None:
    """Add a line of JSON to a file, in one write, so that two openings at once leave two lines."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def score(project: Project, runtime: Runtime, arms: list[dict[str, Any]], member: str) -> dict[str, Any]:
    """Return what each arm measures on `test` by the extractors that decide and by the judges; each draws anew."""
    reference = store.read_reference(project.reference)
    real = torch.from_numpy(np.array(load_split(project.prepared, SPLIT).images))
    scale = Scale(project, runtime, [*reference["selection"], *reference["judges"]]).against(real)
    headline = [scale.rulers[name].name for name in reference["judges"]]
    rows, estimates, warnings = [], [], set[str]()
    for arm in arms:
        sampler = load_sampler(arm["recipe"], project.snapshot, runtime.device)
        seed = derive_seed(project.params.seed, SPLIT, arm["name"])
        found = scale.features(draw(sampler, project.params.judge.samples, seed=seed))
        metrics = scale.metrics(found)
        metrics[DECIDES] = decisive(metrics, [scale.rulers[name] for name in reference["selection"]])
        estimates.append(scale.estimates(found))
        warnings |= scale.warnings(found)
        rows.append({"name": arm["name"], "kind": arm["kind"], "cost": sampler.cost, "metrics": metrics})
        shown = "  ".join(f"{name} {metrics[name]:.3f}" for name in headline)
        print(f"opening  {arm['name']:<20}{shown}", flush=True)
    return {
        "schema": SCHEMA,
        "split": SPLIT,
        "images": len(real),
        "samples": project.params.judge.samples,
        "headline": headline,
        "warnings": sorted(warnings),
        "arms": rows,
        "intervals": intervals_of(rows, estimates, member),
    }
