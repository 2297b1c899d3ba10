"""The model card: what a version is, what it was made from, what it measures and where it ends, as Markdown."""

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.params.redaction import redact
from pipeline.report import certainty, tables
from pipeline.report.page import FOLDER

SPLITS = {
    "train": "fitting networks",
    "val": "every decision",
    "gate": "the numbers below",
    "test": "nothing: it stays closed",
}
LISTED = 12  # parts of a mixture
FEW = 0.5  # of the coverage of real images: a class below it is named among the limits


def card(
    model: str,
    *,
    metrics: Mapping[str, Any],
    gate: Mapping[str, Any] | None,
    strategies: Mapping[str, Any],
    recipe: Mapping[str, Any],
    manifest: Mapping[str, Any],
    failed: Mapping[str, str],
    lineage: Mapping[str, str],
) -> str:
    """Return a version's card; no text in it is read as Markdown or HTML but the card's own.

    metrics, gate: `report/metrics.json` and `report/gate.json`. strategies: `models/fused/strategies.json`. manifest:
    `data/prepared/manifest.json`. failed: why members failed, by name. lineage: what the version was made from.
    """
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=False,  # Markdown; `code` and `line` escape what comes from outside
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": tables.number, "code": code, "line": line}
    text = environment.get_template("card.md").render(
        model=model,
        metrics=metrics,
        gate=gate,
        verdict=tables.verdict(metrics, recipe, strategies),
        shipped=tables.shipped(metrics),
        headlines=tables.headlines(metrics),
        differences=certainty.differences(metrics),
        in_words=tables.recipe_in_words(recipe),
        shares=tables.shares(recipe),
        listed=LISTED,
        strategies=strategies["strategies"],
        decided_by=strategies["decided_by"],
        manifest=manifest,
        splits=SPLITS.items(),
        classes=class_shares(manifest),
        failed=failed,
        limits=limits(metrics),
        lineage=lineage,
    )
    return redact(re.sub(r"\n{3,}", "\n\n", text))


def class_shares(manifest: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return each class and its share of the training images, the most frequent first; none where there are none."""
    counts = (manifest.get("class_counts") or {}).get("train", [])
    total = sum(counts) or 1
    shares = [(name, count / total) for name, count in zip(manifest["classes"] or [], counts, strict=bool(counts))]
    return sorted(shares, key=lambda row: (-row[1], row[0]))


def limits(metrics: Mapping[str, Any]) -> list[str]:
    """Return what a user has to know of where the model ends, from what the judge stage measured."""
    found = [str(warning) for warning in metrics["warnings"]]
    shipped = metrics["shipped"]["name"]
    for row in metrics["memorisation"]:
        if row["name"] == shipped and row["suspicious"]:
            found.append("Its images lie near training images more often than by chance: look for copies.")
    if weak := weak_classes(metrics["classes"]):
        found.append(f"Classes that it covers less than half as well as real images do: {', '.join(weak)}.")
    for row in metrics["classifiers"]["two_sample"]:
        if row["name"] == shipped:
            found.append(
                f"A fresh classifier tells {row['share']:.1%} of its images and real ones rightly; 50 % is a guess."
            )
    found.append(
        f"Distances are to {metrics['floor_images'][1]:,} held-out images of the same source: they say nothing of "
        "other images, and their intervals do not contain how results vary when all members are trained anew."
    )
    return found


def weak_classes(classes: Mapping[str, Any] | None) -> list[str]:
    """Return the classes of which the shipped sampler covers less than half of what real images cover."""
    if classes is None:
        return []
    real, own = (row["coverage"] for row in classes["rows"][:2])
    return [
        name
        for name, best, share in zip(classes["names"], real, own, strict=True)
        if best is not None and share is not None and share < FEW * best
    ]


def shortened(text: str, limit: int) -> str:
    """Return a card's first sections, as many as fit into `limit` characters, and say where the others are."""
    if len(text) <= limit:
        return text
    ending = "\n\nThe rest stands in `card.md` among the artefacts of the version's run.\n"
    kept = ""
    for section in re.split(r"(?=\n## )", text):
        if len(kept) + len(section) + len(ending) > limit:
            break
        kept += section
    return kept.rstrip() + ending


def code(value: object) -> str:
    """Write a name so that nothing in it is Markdown, HTML, the end of a table's cell or a credential."""
    text = re.sub(r"\s+", " ", redact(str(value))).replace("`", "ʼ").replace("|", "\\|")
    return f"`{text}`"


def line(value: object) -> str:
    """Write a sentence as it reads, in one line and without credentials."""
    text = re.sub(r"\s+", " ", redact(str(value)))
    text = re.sub(r"([\\`*\[\]|~])|(?<!\w)_|_(?!\w)", lambda found: "\\" + found[0], text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
