"""What the report says about how sure the judges' numbers are, from `intervals` of `report/metrics.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WITHIN = "within the noise"


@dataclass(frozen=True)
class Row:
    """An arm by one judge: its distance as measured, and the intervals of it and of its difference.

    difference: how much farther than the best member it is; None for the best member itself. verdict: that in words.
    """

    name: str
    kind: str
    measured: float
    distance: Mapping[str, Any]
    difference: Mapping[str, Any] | None

    @property
    def value(self) -> float:
        return float(self.distance["value"])

    @property
    def verdict(self) -> str:
        return told(self.difference) if self.difference else "the best member"


def by_judge(metrics: Mapping[str, Any]) -> dict[str, list[Row]]:
    """Return the rows of each judge that has intervals, by its metric, the nearest arm first."""
    found: dict[str, list[Row]] = {}
    for arm, sure in zip(metrics["arms"], metrics["intervals"]["arms"], strict=True):
        for metric, distance in sure["distances"].items():
            difference = sure["differences"].get(metric)
            found.setdefault(metric, []).append(
                Row(arm["name"], arm["kind"], arm["metrics"][metric], distance, difference)
            )
    return {metric: sorted(rows, key=lambda row: row.value) for metric, rows in found.items()}


def without(metrics: Mapping[str, Any]) -> list[str]:
    """Return the judges' metrics that have too few images for an interval."""
    return [name for name in metrics["headline"] if name not in by_judge(metrics)]


def differences(metrics: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Return by how much what is shipped is farther than the best member, by metric."""
    shipped = metrics["shipped"]
    arms = metrics["intervals"]["arms"]
    found: Mapping[str, Mapping[str, Any]] = next(
        arm["differences"] for arm in arms if (arm["kind"], arm["name"]) == (shipped["kind"], shipped["name"])
    )
    return found


def sentence(metrics: Mapping[str, Any]) -> str:
    """Say by which judges what is shipped differs from the best member beyond the noise, and in which direction."""
    found: dict[str, list[str]] = {"nearer": [], "farther": [], WITHIN: []}
    for metric, difference in differences(metrics).items():
        found[told(difference)].append(metric)
    if not any(found.values()):
        return "The images are too few to tell whether that is noise."
    share = f"{100 * metrics['intervals']['confidence']:g} %"
    every = len(metrics["headline"])
    groups = [
        f"{what} by {'every judge' if len(names) == every else ' and '.join(names)}"
        for what, names in found.items()
        if names
    ]
    return f"With {share} intervals: {'; '.join(groups)}."


def told(difference: Mapping[str, Any]) -> str:
    """Say in a word or three what an interval of a difference says."""
    if not difference["beyond_noise"]:
        return WITHIN
    return "nearer" if difference["value"] < 0 else "farther"
