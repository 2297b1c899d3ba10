"""Families some of whose members failed in training: which of them a run tries again, and when they were last tried.

DVC keeps such a result like any other, so that the same day's runs do not repeat it. A later one does: on a GPU, after
an update of a library or a driver, a training may go differently.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flows.planning.graph import Graph, family, rung, trains
from pipeline.files import read_record, write_json

TRIED = Path(".chorus") / "failed.json"  # by stage, when it was last tried; lost with the clone, which costs one try


def failed_members(root: Path, stage: str) -> list[str]:
    """Return the members of a stage's family that failed, as its roster has them; none where there is no roster."""
    path = root / "models" / "members" / f"rung{rung(stage)}" / str(family(stage)) / "family.json"
    content = read_record(path)
    return [str(member) for member in content.get("failed", [])]


def with_second_tries(graph: Graph, root: Path, hours: float | None, now: datetime | None = None) -> Graph:
    """Return the graph in which trainings with failed members have work to do, if they were tried long enough ago.

    hours: how long ago that is; None means never.
    """
    if hours is None:
        return graph
    tried = read_record(root / TRIED)
    latest = (now or datetime.now(UTC)) - timedelta(hours=hours)
    stages = []
    for stage in graph.stages.values():
        failed = failed_members(root, stage.name) if trains(stage.name) else []
        if failed and not stage.reasons and _when(tried.get(stage.name)) <= latest:
            reason = f"tried again, as these failed: {', '.join(failed)}"
            stage = replace(stage, reasons=(reason,), cached=False, again=True)
        stages.append(stage)
    return Graph(stages)


def note_tries(root: Path, stages: Iterable[str]) -> None:
    """Write down that these stages have been tried now, as far as they train and members of theirs failed."""
    tried, now = read_record(root / TRIED), datetime.now(UTC).isoformat(timespec="seconds")
    for stage in filter(trains, stages):
        if failed_members(root, stage):
            tried[stage] = now
        else:
            tried.pop(stage, None)
    write_json(root / TRIED, tried)


def _when(text: Any) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return datetime.min.replace(tzinfo=UTC)
