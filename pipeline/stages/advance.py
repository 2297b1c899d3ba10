"""Train a family on from where it stood after the rung before, if the race keeps it; write models/members/rungN/FAMILY.

A family that is out leaves a roster without members: what it trained before stays in the pool.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pipeline.compute import Runtime, set_up
from pipeline.data.dataset import read_manifest
from pipeline.files import file_hash, read_json
from pipeline.project import Project
from pipeline.stages._job import Unit, span
from pipeline.stages.train import deliver, members_of, train_units, training_key, units
from pipeline.tracking import Tracker
from pipeline.training.handover import STATE, images_seen
from pipeline.training.interruption import Interruption
from pipeline.training.streams import Streams


def run(project: Project, family: str, rung: int) -> None:
    """Go on with each member that the rung before handed over, as long as the decision on the family says."""
    decision = read_json(project.race_folder(rung) / f"{family}.json")
    before = read_json(project.family_folder(family, rung - 1) / "family.json")
    if not decision["goes_on"]:
        deliver(project, family, rung, {}, {"params": before["params"], "out": True})
        print(f"advance {family}: out of the race before rung {rung}", flush=True)
        return
    runtime = set_up(project.params.compute)
    manifest = read_manifest(project.prepared)
    tracker = Tracker(project.root)
    with Interruption() as interruption:
        going_on = later_units(project, family, rung, decision, manifest, runtime, interruption)
        trained = train_units(going_on, runtime, tracker, manifest, interruption)
    done = members_of(trained)
    told = {name: before[name] for name in ("params", "flops_per_image")}
    told |= {"kimg": decision["kimg"], "siblings": [member for member in done if member not in before["members"]]}
    deliver(project, family, rung, done, told)


def later_units(
    project: Project,
    family: str,
    rung: int,
    decision: dict[str, Any],
    manifest: dict[str, Any],
    runtime: Runtime,
    interruption: Interruption,
) -> Iterator[Unit]:
    """Yield what the family trains in a later rung: each member that is left, and its siblings after it."""
    # A warm start is in the states already, and the average goes on as after one.
    asked = project.params.families[family]
    changes = {"kimg": decision["kimg"], "warm_start": None, "ema_rampup": asked.rampup}
    recipe = asked.model_copy(update=changes)
    before = project.family_folder(family, rung - 1)
    left = read_json(before / "family.json")["members"]
    for unit in units(project, family, recipe, manifest, runtime, interruption):
        (member,) = unit.members
        if member not in left:
            continue
        state = before / member / STATE
        unit = replace(unit, ancestor=state, start=images_seen(state), hands_over=rung < project.rungs[-1])
        yield at_home(project, unit, manifest)
        for sibling in siblings(unit, decision["siblings"]):
            yield at_home(project, sibling, manifest)


def siblings(unit: Unit, asked: dict[str, Any] | None) -> Iterator[Unit]:
    """Yield units that go on from the same state and on the same images, with random numbers of their own.

    asked: how many (`count`) and how long each (`kimg`).
    """
    for number in range(1, 1 + (asked["count"] if asked else 0)):
        (member,) = unit.members
        name = f"{member}b{number}"
        # No family's name has a slash, so the streams are nobody else's.
        streams = Streams(unit.streams.seed, f"{unit.family}/{name}", unit.streams.replica)
        recipe = unit.recipe.model_copy(update={"kimg": asked["kimg"]}) if asked else unit.recipe
        yield replace(unit, members=(name,), recipe=recipe, streams=streams)


def at_home(project: Project, unit: Unit, manifest: dict[str, Any]) -> Unit:
    """Return the unit with the checkpoint folder that belongs to what it goes on from."""
    assert unit.ancestor is not None
    data = f"{manifest['hash']} {file_hash(unit.ancestor)}"
    key = training_key(project, unit.family, unit.members, unit.recipe, data)
    return replace(unit, folder=project.checkpoints / unit.family / span(unit.members) / key)
