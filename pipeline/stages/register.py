"""Register the chosen model, write the report, the model card and registration.json."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from pipeline import registry
from pipeline.data.dataset import read_manifest
from pipeline.data.quarantine import printable
from pipeline.errors import ChorusError
from pipeline.files import read_json, tree_hash, write_json, write_text
from pipeline.lineage import NOT_OF_THE_MODEL, Lineage, read_lineage
from pipeline.moves import GATE
from pipeline.pinning.versions import keep_partners
from pipeline.project import FIRST, Project
from pipeline.registry import Version
from pipeline.report import plots, tables
from pipeline.report.card import card, shortened
from pipeline.report.page import Facts, render
from pipeline.stages._drift import drift_since, remember
from pipeline.stages._failures import failures, in_words
from pipeline.stages._links import links, prefect_run
from pipeline.stages._verdict import check_verdict, promote_if_passed, read_verdict, verdict_tags
from pipeline.tracking import Run, Tracker

SCHEMA = 1
DESCRIPTION = 5000  # characters that the registry holds of a version's description
LISTED = 10  # quarantined or changed files that the report names


@dataclass(frozen=True)
class Inputs:
    """What the stages before left; raises `ChorusError` where files are missing or belong to different runs."""

    project: Project

    @cached_property
    def recipe(self) -> dict[str, Any]:
        return dict(read_json(self.project.chosen / "recipe.json")["recipe"])

    @cached_property
    def strategies(self) -> dict[str, Any]:
        return dict(read_json(self.project.fused / "strategies.json"))

    @cached_property
    def students(self) -> dict[str, Any]:
        return dict(read_json(self.project.chosen / "students.json"))

    @cached_property
    def metrics(self) -> dict[str, Any]:
        metrics = dict(read_json(self.project.report / "metrics.json"))
        if metrics["winner"] != self.strategies["winner"]:
            raise ChorusError(
                f"report/metrics.json judged '{metrics['winner']}' but models/fused holds "
                f"'{self.strategies['winner']}'; run `dvc repro`"
            )
        if metrics["shipped"] != self.students["shipped"]:
            raise ChorusError("report/metrics.json judged another choice than models/chosen holds; run `dvc repro`")
        return metrics

    @cached_property
    def verdict(self) -> dict[str, Any]:
        return read_verdict(self.project)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        return read_manifest(self.project.prepared)

    @cached_property
    def lineage(self) -> Lineage:
        return read_lineage(self.project.root, *NOT_OF_THE_MODEL)


def run(project: Project) -> None:
    """Register `models/chosen` unless a version holds it; write `report/report.html`, `report/card.md` and
    `registration.json`.
    """
    inputs = Inputs(project)
    tracker = Tracker(project.root)
    parent = tracker.pipeline()
    write_text(project.report / "card.md", card_of(inputs))
    write_plots(inputs)
    version = ensure_version(project, tracker, inputs)
    remember(project, tracker, version)
    mark_reused(project, tracker, parent)
    report = project.report / "report.html"
    write_text(report, render(gather(inputs, version, parent, tracker)))
    Run(tracker.client, version.run_id).file(report)
    log_to_parent(project, parent, inputs, version)
    write_json(
        project.registration,
        {
            "schema": SCHEMA,
            "model": version.model,
            "version": version.number,
            "run_id": version.run_id,
            "content": version.content,
            "strategy": inputs.metrics["winner"],
            "shipped": inputs.metrics["shipped"],
            "report": report.relative_to(project.root).as_posix(),
        },
    )
    promote_if_passed(project, tracker, version, inputs.verdict)
    tracker.finish_pipeline()
    shipped = inputs.metrics["shipped"]["name"]
    print(f"register  {version.model} version {version.number}: {shipped}; {report}", flush=True)


def ensure_version(project: Project, tracker: Tracker, inputs: Inputs) -> Version:
    """Return the version that holds `models/chosen`, registered now if there is none, with the alias pointing to it."""
    model = project.params.register_.model
    with registry.packed(project.chosen) as (content, identity):
        check_verdict(inputs.verdict, identity)
        version = registry.find_version(tracker, model, identity)
        description = shortened(card_of(inputs), DESCRIPTION)
        if version is not None:
            # The same model may have been judged anew, on other images or by other judges.
            describe_anew(tracker, version, inputs, description)
        else:
            with tracker.child("fused", "fused model", key=identity) as child:
                child.metrics(tables.shipped(inputs.metrics)["metrics"])
                keep_partners(child, inputs.recipe, project.snapshot)
                version = registry.create_version(
                    tracker, child, model, content, identity, version_tags(inputs), description
                )
    Run(tracker.client, version.run_id).file(project.report / "card.md")
    registry.set_candidate(tracker, version)
    return version


def describe_anew(tracker: Tracker, version: Version, inputs: Inputs, description: str) -> None:
    """Tell of a version what is known now; the champion keeps the verdict by which it became it."""
    tags, measured = version_tags(inputs), f"{inputs.metrics['split']}."
    champion = inputs.verdict["champion"]
    if champion and champion["version"] == version.number:
        tags = {name: value for name, value in tags.items() if not name.startswith(GATE)}
        registry.describe(tracker, version, tags, description, (measured,))
    else:
        registry.describe(tracker, version, tags, description, (measured, f"{GATE}."))


def card_of(inputs: Inputs) -> str:
    """Return the model card of what is registered."""
    return card(
        inputs.project.params.register_.model,
        metrics=inputs.metrics,
        gate=inputs.verdict,
        strategies=inputs.strategies,
        recipe=inputs.recipe,
        manifest=inputs.manifest,
        failed={name: fault["reason"] for name, fault in failures(inputs.project).items()},
        lineage=made_from(inputs),
    )


def write_plots(inputs: Inputs) -> None:
    """Write what `dvc metrics` and `dvc plots` show: report/summary.json and the rows in report/plots."""
    report = inputs.project.report
    write_json(report / "summary.json", plots.summary(inputs.metrics))
    write_json(report / "plots" / "distances.json", plots.distances(inputs.metrics))
    write_json(report / "plots" / "curves.json", plots.curves(histories(inputs.project)))


def histories(project: Project) -> dict[str, list[dict[str, float]]]:
    """Return what training wrote down, by FAMILY/MEMBER."""
    return {name: read_json(folder / "history.json") for name, folder in members_of(project).items()}


def made_from(inputs: Inputs) -> dict[str, str]:
    """Return what the model was made from, by name."""
    lineage = inputs.lineage
    return {
        "commit": lineage.commit,
        "changed files": some_of(lineage.changed) or "none",
        "data": inputs.manifest["hash"],
        "lock entries": lineage.lock,
        "chorus": installed("chorus"),
        "torch": installed("torch"),
    }


def version_tags(inputs: Inputs) -> dict[str, str]:
    """Return a version's tags: its lineage, and what the judges and the gate say."""
    lineage, metrics = inputs.lineage, inputs.metrics
    tags = {
        "chorus.strategy": metrics["winner"],
        "chorus.shipped": f"{metrics['shipped']['kind']} {metrics['shipped']['name']}",
        "chorus.commit": lineage.commit,
        "chorus.dirty": str(lineage.dirty).lower(),
        "chorus.data": inputs.manifest["hash"],
        "chorus.lock": lineage.lock,
        "chorus.code": installed("chorus"),
        "chorus.samples": str(metrics["samples"]),
    }
    for row in tables.headlines(metrics):
        tags[f"{metrics['split']}.{row.metric}"] = f"{row.shipped:.6g}"
        tags[f"{metrics['split']}.{row.metric}.best_member"] = f"{row.member:.6g}"
    return tags | verdict_tags(inputs.verdict)


def some_of(names: Sequence[str]) -> str:
    """Return the first names and how many more there are."""
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def mark_reused(project: Project, tracker: Tracker, parent: Run) -> None:
    """Give the pipeline's run a child for each member that it did not train, linked to the run that did."""
    present = {
        run.info.run_name
        for run in tracker.find(chorus_kind="member", mlflow_parentRunId=parent.id)
        if run.info.status == "FINISHED"
    }
    originals, manifest = trained_by(project, tracker), read_manifest(project.prepared)
    for name, folder in members_of(project).items():
        if name in present:
            continue
        evaluation = read_json(project.evaluation / folder.parent.relative_to(project.members) / "evaluation.json")
        tags = {"chorus.reused": "true"} | ({"chorus.original": originals[name]} if name in originals else {})
        with tracker.child("member", name, key=tree_hash(folder), **tags) as child:
            last = max((row for row in evaluation["candidates"] if row["id"].startswith(f"{name}/")), key=_nimg)
            child.params(read_json(folder.parent / "family.json")["params"])
            child.dataset(manifest)
            child.history(read_json(folder / "history.json"))
            child.metrics({f"val/{metric}": value for metric, value in last["metrics"].items()}, step=_nimg(last))
            child.file(project.measured(last["id"]) / "grid.png", "samples")


def members_of(project: Project) -> dict[str, Path]:
    """Return the folder of each member of the families in params.yaml, by FAMILY/MEMBER: that of its last rung."""
    return {
        f"{family}/{path.parent.name}": path.parent
        for family in project.params.families
        for rung in project.rungs
        for path in sorted(project.family_folder(family, rung).glob("*/history.json"))
    }


def trained_by(project: Project, tracker: Tracker) -> dict[str, str]:
    """Return the id of the run that trained each member; one that was trained elsewhere is left out."""
    found = {name: tracker.find(chorus_member=tree_hash(folder)) for name, folder in members_of(project).items()}
    return {name: runs[0].info.run_id for name, runs in found.items() if runs}


def _nimg(candidate: dict[str, Any]) -> int:
    return int(candidate["nimg"])


def log_to_parent(project: Project, parent: Run, inputs: Inputs, version: Version) -> None:
    """Store the outcome with the pipeline's run: report, figures, tables, and each arm's distances by the judges."""
    metrics = inputs.metrics
    parent.metrics(
        {f"{name}/{arm['name']}": arm["metrics"][name] for arm in metrics["arms"] for name in metrics["headline"]}
    )
    parent.dataset(inputs.manifest)
    choices = (project.fused / "strategies.json", project.chosen / "students.json")
    written = [project.report / name for name in ("report.html", "card.md", "metrics.json")]
    for path in (*written, project.verdict, *choices):
        parent.file(path)
    for folder in (project.report / "figures", project.gate_pictures):
        parent.file(folder)
    for path in race_tables(project):
        parent.file(path, f"race/{path.parent.name}")
    parent.tag(chorus_winner=metrics["winner"], chorus_version=version.number, chorus_content=version.content)
    if failed := failures(project):
        parent.tag(chorus_failed=in_words(failed))


def gather(inputs: Inputs, version: Version, parent: Run, tracker: Tracker) -> Facts:
    """Collect what the report tells."""
    project, lineage = inputs.project, inputs.lineage
    lines = (project.prepared / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()[:LISTED]
    quarantined = [json.loads(line) for line in lines]
    return Facts(
        model=version.model,
        version=version.number,
        metrics=inputs.metrics,
        gate=inputs.verdict,
        sides=sides(project.gate_pictures, inputs.verdict),
        strategies=inputs.strategies,
        students=inputs.students,
        recipe=inputs.recipe,
        manifest=inputs.manifest,
        quarantine=[(printable(row["id"]), row["reason"]) for row in quarantined],
        histories=histories(project),
        failed={
            name: (fault["reason"], fault["nimg"] / 1000, fault["rung"]) for name, fault in failures(project).items()
        },
        pictures=pictures(project.report / "figures", inputs.metrics),
        nearest=nearest(project.report / "figures", inputs.metrics),
        lineage={
            "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "version": f"{version.model} {version.number}",
            **made_from(inputs),
            "content": version.content,
            "pipeline run": parent.id,
            "model's run": version.run_id,
            **prefect_run(parent),
        },
        details={"Lock entries": lineage.outputs, "Runs of the members": trained_by(project, tracker)},
        drift=drift_since(project, tracker, version),
        links=links(tracker, parent, version, lineage.commit),
        race=[read_json(path) for path in race_tables(project)],
        siblings=inputs.strategies.get("siblings", []),
    )


def race_tables(project: Project) -> list[Path]:
    """Return the files that tell who went on to each later rung."""
    return [project.race_folder(rung) / "table.json" for rung in project.rungs if rung != FIRST]


def pictures(figures: Path, metrics: dict[str, Any]) -> dict[str, bytes]:
    """Return the sheets of real images, of the best member and, where a student is shipped, of its teacher, by caption.

    What is shipped is among what the gate drew.
    """
    member, winner, shipped = metrics["best_member"], metrics["winner"], metrics["shipped"]
    files = {
        "Real images": figures / "real.png",
        f"The best member: {member}": figures / "member" / f"{member.replace('/', '-')}.png",
    }
    if shipped["kind"] == "student":
        files[f"The fusion that it learnt from: {winner}"] = figures / "strategy" / f"{winner}.png"
    return {caption: path.read_bytes() for caption, path in files.items()}


def sides(pictures: Path, verdict: dict[str, Any]) -> dict[str, bytes]:
    """Return the sheets of the champion and the candidate, of the same latents, by caption; those that were drawn."""
    files = {"candidate": "The candidate"}
    if verdict["champion"]:
        files = {"champion": f"The champion, version {verdict['champion']['version']}", **files}
    found = {caption: pictures / f"{name}.png" for name, caption in files.items()}
    return {caption: path.read_bytes() for caption, path in found.items() if path.exists()}


def nearest(figures: Path, metrics: dict[str, Any]) -> dict[str, bytes]:
    """Return the sheets of images beside their nearest training images by the name of what drew them."""
    names = [row["name"] for row in metrics["memorisation"] if row["kind"] != "real"]
    return {name: (figures / "nearest" / f"{name.replace('/', '-')}.png").read_bytes() for name in names}
