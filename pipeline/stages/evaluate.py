"""Sample a family's candidates of one rung, featurise and measure them; write evaluation/rungN/FAMILY."""

import shutil
from pathlib import Path
from typing import Any

import torch

from pipeline.compute import Runtime, set_up
from pipeline.errors import ChorusError
from pipeline.evaluation import store
from pipeline.evaluation.extractors import Extractor, load_extractors
from pipeline.evaluation.features import Features
from pipeline.evaluation.metrics import measure, warnings_of
from pipeline.evaluation.pictures import grid, write_png
from pipeline.evaluation.ruler import DECIDES, Ruler, decisive
from pipeline.files import read_json, tree_hash, write_json
from pipeline.fusion.samplers import CandidateSampler, classes_of, draw
from pipeline.project import FIRST, Project
from pipeline.randomness import derive_seed
from pipeline.stages._failures import failures_of
from pipeline.tracking import Run, Tracker
from pipeline.weights import load_generator

SHOWN = 64


def run(project: Project, family: str, rung: int = FIRST) -> None:
    """Measure each snapshot of each member by the selection extractors; judges take no part here."""
    weights, folder = project.family_folder(family, rung), project.evaluation_folder(family, rung)
    shutil.rmtree(folder, ignore_errors=True)
    for name, failure in failures_of(project, family, rung).items():
        print(f"evaluate  {name} failed in training: {failure['reason']}", flush=True)
    entries = measure_all(project, candidates_of(project, family, rung), weights.parent, folder)
    write_json(
        folder / "evaluation.json",
        {
            "schema": store.SCHEMA,
            "family": family,
            "models_hash": tree_hash(weights),
            "samples": project.params.evaluation.samples,
            "candidates": entries,
        },
    )
    log_to_members(project, weights, entries)


def measure_all(project: Project, found: list[str], weights: Path, folder: Path) -> list[dict[str, Any]]:
    """Measure snapshots against `val`, write their features and grids below `folder`; return their entries.

    found: their ids, A/B/SNAPSHOT. weights: the folder that these lead on from; folder: where A's results go.
    """
    runtime = set_up(project.params.compute)
    reference = store.read_reference(project.reference)
    selection = reference["selection"] if found else []
    extractors = load_extractors(project.reference, selection, runtime.device, project.weights)
    rulers = {name: store.read_ruler(project.reference, name) for name in extractors}
    real = {name: store.read_features(project.reference, "val", name) for name in extractors}
    entries = []
    for done, candidate in enumerate(found, 1):
        entry = evaluate_candidate(project, runtime, candidate, weights, folder, extractors, rulers, real)
        entries.append(entry)
        floors = reference["floors"]["val"]
        shown = "  ".join(
            f"{name} {entry['metrics'][name]:.{digits}f} (real {floors[name]:.{digits}f})"
            for name, digits in {DECIDES: 4, **{ruler.name: 3 for ruler in rulers.values()}}.items()
        )
        print(f"evaluate  {candidate} ({done} of {len(found)}): {shown}", flush=True)
    for warning in sorted({text for entry in entries for text in entry["warnings"]}):
        print(f"evaluate  warning: {warning}", flush=True)
    return entries


def candidates_of(project: Project, family: str, rung: int) -> list[str]:
    """Return the ids of a family's snapshots; raises `ChorusError` where the weights are not those of its roster."""
    folder = project.family_folder(family, rung)
    members: list[str] = read_json(folder / "family.json")["members"]
    # Who is in a later rung was decided by the race.
    roster = project.params.families[family].members if rung == FIRST else tuple(members)
    failed = failures_of(project, family, rung)
    roster = tuple(member for member in roster if f"{family}/{member}" not in failed)
    snapshots = {
        member: sorted(path.parent.name for path in (folder / member).glob("*/config.json")) for member in members
    }
    complete = tuple(member for member in members if snapshots[member])
    if not roster == tuple(members) == complete:
        raise ChorusError(
            f"{folder.relative_to(project.root)} holds {', '.join(complete) or 'no member'}, params.yaml asks for "
            f"{', '.join(roster)}: run `dvc repro train@{family}`"
        )
    return [f"{family}/{member}/{snapshot}" for member in members for snapshot in snapshots[member]]


def evaluate_candidate(
    project: Project,
    runtime: Runtime,
    candidate: str,
    weights: Path,
    folder: Path,
    extractors: dict[str, Extractor],
    rulers: dict[str, Ruler],
    real: dict[str, Features],
) -> dict[str, Any]:
    """Write one candidate's features and grid; return its entry of evaluation.json.

    weights: the rung's folder of snapshots; folder: the family's folder in `evaluation`.
    """
    params = project.params
    _, member, snapshot = candidate.split("/")
    sampler = CandidateSampler(load_generator(weights / candidate, runtime.device)[0], runtime.device)
    try:
        seed = derive_seed(params.seed, "evaluate", candidate)
        asked = classes_of(torch.arange(params.evaluation.samples), sampler.shares, seed)
        images = draw(sampler, params.evaluation.samples, seed=seed, labels=asked)
    except ChorusError as error:
        remedy = f"train its family anew: `dvc repro --force train@{candidate.partition('/')[0]}`, or leave it out"
        raise ChorusError(f"{candidate}: {error}; {remedy}") from None
    metrics: dict[str, float] = {}
    warnings: list[str] = []
    if bool((images == images[:1]).all()):
        warnings.append(f"{candidate}: all {len(images)} images are equal")
    if asked is not None:
        store.write_asked(folder, candidate, asked.numpy())
    for name, extractor in extractors.items():
        features = extractor.features(images)
        store.write_features(store.candidate_stem(folder, candidate, name), features)
        seed = derive_seed(params.seed, "evaluate", name)
        metrics |= measure(features, real[name], rulers[name], neighbours=params.evaluation.neighbours, seed=seed)
        warnings += warnings_of(features, real[name], rulers[name])
    metrics[DECIDES] = decisive(metrics, list(rulers.values()))
    write_png(folder / member / snapshot / "grid.png", grid(images[:SHOWN]))
    facts = {"id": candidate, "member": member, "nimg": int(snapshot), "classes": sampler.classes}
    return {**facts, "metrics": metrics, "warnings": warnings}


def log_to_members(project: Project, folder: Path, entries: list[dict[str, Any]]) -> None:
    """Add the distances to the MLflow runs that trained the members; a member trained elsewhere has no run here."""
    tracker = Tracker(project.root)
    for member in sorted({entry["member"] for entry in entries}):
        runs = tracker.find(chorus_member=tree_hash(folder / member))
        if not runs:
            continue
        run = Run(tracker.client, runs[0].info.run_id)
        for entry in entries:
            if entry["member"] == member:
                run.metrics({f"val/{name}": value for name, value in entry["metrics"].items()}, step=entry["nimg"])
