"""What the report's tables and sentences say, computed from the judge's and the fusion's files."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.report import certainty

HIGHER_IS_BETTER = ("isc", "precision", "recall", "density", "coverage")
SCORES = ("choose", "noise", "fit", "cost")  # evidence that every strategy gives
CHOSEN = "the winner"  # what strategies.json says of a winner that no one has named: see pipeline.fusion.choice.verdict
INCEPTION = "inception-v3-compat"


@dataclass(frozen=True)
class Column:
    """One metric of one extractor; `judge` says that the extractor took no part in any decision."""

    metric: str
    kind: str
    extractor: str
    judge: bool

    @property
    def higher_is_better(self) -> bool:
        return self.kind in HIGHER_IS_BETTER


@dataclass(frozen=True)
class Headline:
    """One judge's verdict: the distance of what is shipped beside that of the best member and of real images."""

    metric: str
    shipped: float
    member: float
    floor: float | None

    @property
    def gain(self) -> float:
        """Share of the member's distance that is saved; negative where what is shipped is farther away."""
        return 1 - self.shipped / self.member if self.member else 0.0


@dataclass(frozen=True)
class ClassRow:
    """One class: its name, its held-out images, and of real images and each arm (coverage, share of their images)."""

    name: str
    images: int
    arms: list[tuple[float | None, float | None]]


def number(value: float | None) -> str:
    """Write a number with as many digits as tell it from its neighbours; a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0:
        return "0"
    if abs(value) < 5e-5:
        return f"{value:.0e}"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 else 4
    return f"{value:,.{digits}f}"


def columns(metrics: Mapping[str, Any]) -> list[Column]:
    """Return the columns of `report/metrics.json`: judges first, each extractor's metrics together."""
    found = []
    for name in metrics["arms"][0]["metrics"]:
        kind, _, extractor = name.partition("_")
        extractor = extractor or INCEPTION
        found.append(Column(name, kind, extractor, extractor in metrics["judges"]))
    order = {extractor: i for i, extractor in enumerate(metrics["judges"])}
    return sorted(found, key=lambda c: (order.get(c.extractor, len(order)), c.extractor))


def best_values(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the best value of each column over all arms."""
    best = {}
    for column in columns(metrics):
        values = [arm["metrics"][column.metric] for arm in metrics["arms"]]
        finite = [value for value in values if value is not None and math.isfinite(value)]
        if finite:
            best[column.metric] = max(finite) if column.higher_is_better else min(finite)
    return best


def arm(metrics: Mapping[str, Any], name: str, kind: str) -> Mapping[str, Any]:
    """Return an arm by name; a strategy may bear a member's name, so its kind is needed too."""
    return next(row for row in metrics["arms"] if row["name"] == name and row["kind"] == kind)


def shipped(metrics: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arm that is shipped: the winner of the fusion, or the student that takes its place."""
    return arm(metrics, metrics["shipped"]["name"], metrics["shipped"]["kind"])


def headlines(metrics: Mapping[str, Any]) -> list[Headline]:
    """Return each judge's verdict; the best member is the one that was nearest on `val`."""
    own = shipped(metrics)["metrics"]
    member = arm(metrics, metrics["best_member"], "member")["metrics"]
    return [Headline(name, own[name], member[name], metrics["floor"].get(name)) for name in metrics["headline"]]


def class_rows(classes: Mapping[str, Any] | None) -> list[ClassRow]:
    """Return the rows of the table of classes: what the first arm covers least comes first, empty ones last."""
    if classes is None:
        return []
    rows = [
        ClassRow(
            name,
            classes["counts"][i],
            [(arm["coverage"][i], arm["share"][i] if arm["share"] else None) for arm in classes["rows"]],
        )
        for i, name in enumerate(classes["names"])
    ]

    def place(row: ClassRow) -> tuple[bool, float]:
        coverage = row.arms[1][0]
        return coverage is None, coverage or 0.0

    return sorted(rows, key=place)


def verdict(metrics: Mapping[str, Any], recipe: Mapping[str, Any], strategies: Mapping[str, Any]) -> str:
    """Say whether fusing was worth it, and whether the noise could have made that difference."""
    rows = headlines(metrics)
    nearer = sum(row.gain > 0 for row in rows)
    member = metrics["best_member"]
    student = metrics["shipped"]["kind"] == "student"
    what = f"the student {metrics['shipped']['name']}" if student else "the fusion"
    if recipe["kind"] == "candidate" and not student:
        if metrics["winner"] == "best" and chosen_on_val(strategies):
            return f"No mixture did better on the validation images than one member alone: {recipe['id']}."
        what = f"the strategy {metrics['winner']}"
    sure = certainty.sentence(metrics)
    if nearer == len(rows):
        judges = {1: "The judge finds", 2: "Both judges find"}.get(len(rows), "All judges find")
        return f"{judges} {what} nearer to real images than the best single member, {member}. {sure}"
    if nearer == 0:
        return f"No judge finds {what} nearer to real images than the best single member, {member}. {sure}"
    return (
        f"The judges disagree: {nearer} of {len(rows)} find {what} nearer to real images than the best single "
        f"member, {member}. {sure} The fusion may have learnt the extractors that decide rather than the images."
    )


def chosen_on_val(strategies: Mapping[str, Any]) -> bool:
    """Whether the winner of `strategies.json` was chosen among its rows, and not named by `fusion.strategy`."""
    return any(row["name"] == strategies["winner"] and row.get("why") == CHOSEN for row in strategies["strategies"])


def shares(recipe: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return what a sampler is made of as (name, weight), parts without weight left out, the heaviest first."""
    match recipe:
        case {"kind": "candidate", "id": name}:
            return [(str(name), 1.0)]
        case {"source": source}:
            return shares(source)
        case {"kind": "stack", "parts": parts}:
            return shares({"kind": "mixture", "parts": parts, "weights": [1 / len(parts)] * len(parts)})
        case {"parts": parts, "weights": weights}:
            total: dict[str, float] = {}
            for part, weight in zip(parts, weights, strict=True):
                for name, share in shares(part):
                    total[name] = total.get(name, 0.0) + weight * share
            return sorted(((n, w) for n, w in total.items() if w > 0), key=lambda pair: (-pair[1], pair[0]))
    return []


def recipe_in_words(recipe: Mapping[str, Any]) -> str:
    """Say how a recipe makes an image."""
    match recipe:
        case {"kind": "candidate", "id": name} if name.startswith("soup/"):
            return (
                "Every image comes from one network, whose weights are an average along a training or among siblings."
            )
        case {"kind": "candidate"}:
            return "Every image comes from one member."
        case {"kind": "mixture"}:
            return "Each image comes from one of these, drawn with these weights."
        case {"kind": "average"}:
            return "Each image is the weighted mean of these members' pixels, for one shared latent."
        case {"kind": "refine", "steps": steps, "critics": critics}:
            return (
                "Each image comes from one of these, drawn with these weights, at a latent that has walked "
                f"{steps} steps to where {len(critics)} discriminators find it more real."
            )
        case {"kind": "rejection", "acceptance": share}:
            return (
                f"Each image comes from one of these, drawn with these weights, of which {share:.0%} are accepted: the "
                "more likely, the more real images than drawn ones look like it."
            )
        case {"kind": "latents", "acceptance": share}:
            return (
                f"Every image comes from this one, from a latent that a small network kept: it keeps {share:.0%}, the "
                "likelier, the more real images than drawn ones look like what it expects of the latent."
            )
        case {"kind": "stack"}:
            return "Each image is what a trained combiner makes of these members' images, for one shared latent."
        case {"kind": "moe"}:
            return "How often each of these draws an image depends on the image's class or group; these are the means."
        case {"kind": "vote", "draws": draws, "critics": critics}:
            return f"Of {draws} images drawn with these weights, the one that {len(critics)} discriminators like best."
    return f"A sampler of the kind {recipe['kind']}."


def evidence_columns(strategies: Mapping[str, Any]) -> list[str]:
    """Return the names of all single numbers that strategies give as evidence, in the order of their appearance."""
    rows = [row.get("evidence", {}) for row in strategies["strategies"]]
    found = {key: None for row in rows for key, value in row.items() if isinstance(value, int | float)}
    return list(found)
