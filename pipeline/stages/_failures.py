"""Members whose training failed: what is left of them, and who they are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.files import read_json, write_json
from pipeline.project import Project

SCHEMA = 1
FILE = "failure.json"  # in the member's folder, in place of its snapshots


class Failed(Exception):
    """The members of a unit have failed for good; their files say so already."""


def write_failure(folder: Path, reason: str, nimg: int = 0, incidents: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write why a member failed and after how many images, and each time that its training was found unhealthy."""
    write_json(folder / FILE, {"schema": SCHEMA, "reason": reason, "nimg": nimg, "incidents": list(incidents)})


def only_reason(_folder: str, names: list[str]) -> list[str]:
    """Return the names that a failed member leaves behind: all but its reason (for `shutil.copytree`)."""
    return [name for name in names if name != FILE]


def failures_in(folders: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Return what `failure.json` says in those of the members' folders that have one, by the members' names."""
    return {name: read_json(folder / FILE) for name, folder in folders.items() if (folder / FILE).exists()}


def failures_of(project: Project, family: str, rung: int) -> dict[str, dict[str, Any]]:
    """Return the failures of a family's members in a rung, by FAMILY/MEMBER."""
    files = sorted(project.family_folder(family, rung).glob(f"*/{FILE}"))
    return failures_in({f"{family}/{path.parent.name}": path.parent for path in files})


def failures(project: Project) -> dict[str, dict[str, Any]]:
    """Return the failures of all families in all rungs, each with its `rung`.

    A member that failed in a later rung keeps the snapshots of the rungs before.
    """
    return {
        name: {**failure, "rung": rung}
        for rung in project.rungs
        for family in project.params.families
        for name, failure in failures_of(project, family, rung).items()
    }


def in_words(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the failed members and their reasons as one line."""
    return "; ".join(f"{name}: {failure['reason']}" for name, failure in found.items())
