"""Decide which families go on to a rung, and how long they train in it; write evaluation/race/rungN."""

import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.evaluation import store
from pipeline.evaluation.frechet import Views, mean_distance
from pipeline.evaluation.ruler import DECIDES
from pipeline.files import read_json, tree_hash, write_json
from pipeline.fusion.strategies._base import Candidate
from pipeline.params import AUTO
from pipeline.project import Project
from pipeline.racing.decide import Standing, halve, reason
from pipeline.racing.prospects import Course, foretell
from pipeline.racing.shares import branched, rung_kimg, survivors
from pipeline.stages._pool import halves_of_val, read_family, remove_former
from pipeline.tracking import Run, Tracker

SCHEMA = 1


def run(project: Project, rung: int) -> None:
    """Write FAMILY.json for every family, which holds nothing but its decision, and table.json with all the reasons.

    The half of `val` that everything is fitted on decides; a family without a candidate in the rung before is out.
    Where none has one, nobody goes on, and what earlier rungs trained stays.
    """
    after = rung - 1
    remove_former(project, "rank", [after])
    rosters = {
        family: read_json(project.family_folder(family, after) / "family.json") for family in project.params.families
    }
    rulers = store.deciding_rulers(project.reference)
    pool = {family: read_family(project, rulers, family, after) for family in rosters}
    racers = {family: found for family, found in pool.items() if found}
    fit, _ = halves_of_val(project, rulers)
    seen = {family: [candidate.views for candidate in found] for family, found in racers.items()}
    foretold = outlook(project, rung, racers, rosters, seen, fit.views) if racers else []
    keep = 1 + foretold.index(min(foretold)) if foretold else survivors(project.params, len(racers))
    standings = halve(seen, fit.views, keep) if racers else []
    decisions = decide(project, rung, standings, rosters)
    rows = [
        row_of(standing, rosters[standing.family], racers[standing.family], decisions[standing.family])
        for standing in standings
    ]
    failed = [family for family in rosters if family not in racers and not rosters[family].get("out")]
    table = {"after": after, "decided_by": DECIDES, "failed": failed, "foretold": foretold, "families": rows}
    write(project, rung, decisions, table)
    log_to_members(project, rung, standings)


def outlook(
    project: Project,
    rung: int,
    racers: Mapping[str, Sequence[Candidate]],
    rosters: Mapping[str, Any],
    seen: Mapping[str, Sequence[Views]],
    real: Views,
) -> list[float]:
    """Return the distances that are foretold if 1, 2, … families go on; none where `racing.keep` says how many do."""
    if project.params.racing.keep != AUTO or rung != project.rungs[-1]:
        return []
    courses = {}
    for family, candidates in racers.items():
        members: dict[str, dict[int, float]] = defaultdict(dict)
        for candidate in candidates:
            members[candidate.member][candidate.nimg] = mean_distance(candidate.views, real)
        courses[family] = Course.of(members.values())

    def images(family: str, families: int) -> float:
        members, flops = len(rosters[family]["members"]), rosters[family]["flops_per_image"]
        kimg = rung_kimg(project.params, family, families, members, flops)
        # With siblings one half of it is the plain continuation's; whether a sibling then gets a batch is looked at
        # once it is known how many families go on.
        return 1000 * kimg / (1 if project.params.racing.branch == 1 else 2)

    order = [standing.family for standing in halve(seen, real, 1)]
    return foretell(order, seen, real, courses, images)


def decide(
    project: Project, rung: int, standings: Sequence[Standing], rosters: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return each family's decision: whether it goes on, and what each of its members then gets."""
    staying = [standing.family for standing in standings if standing.goes_on]
    decisions: dict[str, dict[str, Any]] = {}
    for family, roster in rosters.items():
        decision: dict[str, Any] = {"schema": SCHEMA, "family": family, "rung": rung, "goes_on": family in staying}
        if family in staying:
            members, flops = len(roster["members"]), roster["flops_per_image"]
            kimg = rung_kimg(project.params, family, len(staying), members, flops)
            decision |= {"kimg": kimg, "siblings": None}
            if rung == project.rungs[-1] and project.params.racing.branch > 1:
                own, each = branched(project.params, family, kimg)
                decision |= {"kimg": own, "siblings": {"count": project.params.racing.branch, "kimg": each}}
        decisions[family] = decision
    return decisions


def row_of(
    standing: Standing, roster: Mapping[str, Any], candidates: Sequence[Candidate], decision: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a family's row of the table: how it came out, what it has had, and what each member gets next."""
    members = len(roster["members"])
    seen = max(candidate.nimg for candidate in candidates)
    return {
        "family": standing.family,
        "place": standing.place,
        "best": standing.best,
        "gain": standing.gain,
        "goes_on": standing.goes_on,
        "why": reason(standing),
        "members": members,
        "seen_kimg": seen / 1000,
        "spent_tflop": seen * roster["flops_per_image"] * members / 1e12,
        "next_kimg": decision.get("kimg", 0.0),
    }


def write(project: Project, rung: int, decisions: Mapping[str, dict[str, Any]], table: dict[str, Any]) -> None:
    """Write the stage's folder in place of an earlier one, and print how the families came out."""
    for row in table["families"]:
        print(f"rank  {row['place']}. {row['family']}: {DECIDES} {row['best']:.4f}, {row['why']}", flush=True)
    for family in table["failed"]:
        print(f"rank  {family}: has no candidate in rung {table['after']}, so it is out", flush=True)
    if table["foretold"]:
        told = ", ".join(
            f"{distance:.4f} if {count} {'go on' if count > 1 else 'goes on'}"
            for count, distance in enumerate(table["foretold"], 1)
        )
        print(f"rank  {DECIDES} of the best mixture, foretold: {told}", flush=True)
    folder = project.race_folder(rung)
    shutil.rmtree(folder, ignore_errors=True)
    for family, decision in decisions.items():
        write_json(folder / f"{family}.json", decision)
    write_json(folder / "table.json", {"schema": SCHEMA, "rung": rung, **table})


def log_to_members(project: Project, rung: int, standings: Sequence[Standing]) -> None:
    """Say in the MLflow runs of the members how their family came out; one that was trained elsewhere has no run."""
    tracker = Tracker(project.root)
    for standing in standings:
        told = f"{'goes on to' if standing.goes_on else 'out before'} rung {rung}: {reason(standing)}"
        for history in sorted(project.family_folder(standing.family, rung - 1).glob("*/history.json")):
            for run in tracker.find(chorus_member=tree_hash(history.parent))[:1]:
                Run(tracker.client, run.info.run_id).tag(chorus_race=told, chorus_place=standing.place)
