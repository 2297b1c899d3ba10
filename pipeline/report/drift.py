"""What the report says of how the data have changed since another version."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.report import charts
from pipeline.report.tables import number


@dataclass(frozen=True)
class Drift:
    """What stands beside the data: whether they have changed, in words, and each class's share with that before."""

    changed: bool
    words: str
    bars: list[tuple[charts.Bar, float | None]]


def told(drift: Mapping[str, Any] | None, manifest: Mapping[str, Any]) -> Drift | None:
    """Return what is said of a drift, None where there is no version to compare with.

    drift: what `pipeline.stages._drift` found. manifest: `data/prepared/manifest.json`.
    """
    if drift is None:
        return None
    other = f"version {drift['version']}" + (", the champion" if drift["champion"] else "")
    if not drift["known"]:
        return Drift(False, f"Nothing is stored of the data of {other}.", [])
    if drift["same"]:
        return Drift(False, f"The prepared images are those of {other}, byte by byte.", [])
    classes = drift["classes"]
    said = [in_numbers(manifest["counts"]["train"], drift["counts"]["train"], other), of_pixels(drift["pixels"])]
    if classes:
        said.append(of_classes(classes))
    changed = any(part and part["changed"] for part in (drift["pixels"], classes))
    return Drift(changed, " ".join(said), bars(classes["rows"]) if classes else [])


def in_numbers(now: int, before: int, other: str) -> str:
    return f"There are {now:,} training images; {other} had {before:,}."


def of_pixels(moved: Mapping[str, Any] | None) -> str:
    if moved is None:
        return "How they look cannot be compared: colour came or went."
    verdict = "they have changed" if moved["changed"] else "no more than chance explains"
    return (
        f"Small versions of them lie {number(moved['distance'])} of their variance apart, where independent draws lie "
        f"{number(moved['chance'])} apart (standard deviation {number(moved['deviation'])}): {verdict}."
    )


def of_classes(classes: Mapping[str, Any]) -> str:
    come = [row["name"] for row in classes["rows"] if row["before"] is None]
    gone = [row["name"] for row in classes["rows"] if row["share"] is None]
    said = f"{100 * classes['variation']:.1f} % of them would have to change class to restore the classes' shares"
    if classes["p_value"] is not None:
        chance = "more than chance explains" if classes["changed"] else "no more than chance explains"
        said += f", {chance}"
    for what, names in (("new", come), ("gone", gone)):
        if names:
            said += f"; {what}: {', '.join(names)}"
    return said + "."


def bars(rows: list[Mapping[str, Any]]) -> list[tuple[charts.Bar, float | None]]:
    """Return each class that there is as a bar, with the share that it had before."""
    here = [row for row in rows if row["share"] is not None]
    drawn = charts.bars([(row["name"], row["share"], "strategy") for row in here])
    return [(bar, row["before"]) for bar, row in zip(drawn, here, strict=True)]
