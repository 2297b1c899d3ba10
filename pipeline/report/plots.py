"""The judges' numbers and the learning curves as `dvc metrics` and `dvc plots` read them: nested numbers, flat rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.report import certainty, tables

Row = dict[str, Any]


def summary(metrics: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the numbers to compare between runs, by judge, from `report/metrics.json`.

    Of each judge: the distance of what is shipped, of the best member and of real images, and precision, recall and
    coverage; of the difference to the best member, without bias, the value and its interval where there is one.
    """
    own, apart = tables.shipped(metrics), certainty.differences(metrics)
    found: dict[str, dict[str, float]] = {}
    for judge, row in zip(metrics["judges"], tables.headlines(metrics), strict=True):
        numbers = {row.metric: row.shipped, "best_member": row.member}
        if row.floor is not None:
            numbers["real_images"] = row.floor
        if row.metric in apart:
            numbers |= {f"difference_{key}": apart[row.metric][key] for key in ("low", "value", "high")}
        kinds = ("precision", "recall", "coverage")
        values = {kind: own["metrics"].get(f"{kind}_{judge}") for kind in kinds}
        found[judge] = numbers | {kind: value for kind, value in values.items() if value is not None}
    return found | {"all": {metrics["decided_by"]: own["metrics"][metrics["decided_by"]], "passes": own["cost"]}}


def distances(metrics: Mapping[str, Any]) -> list[Row]:
    """Return a row for each arm and judge: its distance with low and high, without bias where there is an interval."""
    sure = {
        (metric, row.kind, row.name): row.distance
        for metric, rows in certainty.by_judge(metrics).items()
        for row in rows
    }
    rows = []
    for metric in metrics["headline"]:
        for arm in metrics["arms"]:
            measured = arm["metrics"][metric]
            bounds = sure.get(
                (metric, arm["kind"], arm["name"]), {"value": measured, "low": measured, "high": measured}
            )
            ends = {key: bounds[key] for key in ("low", "high")}
            rows.append({"judge": metric, "arm": arm["name"], "kind": arm["kind"], "distance": bounds["value"], **ends})
    return rows


def curves(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Row]:
    """Return a row for each number that training wrote down, from the histories by FAMILY/MEMBER."""
    return [
        {
            "family": member.rpartition("/")[0],
            "member": member,
            "kimg": row["nimg"] / 1000,
            "number": name,
            "value": value,
        }
        for member, rows in histories.items()
        for row in rows
        for name, value in row.items()
        if name != "nimg"
    ]
