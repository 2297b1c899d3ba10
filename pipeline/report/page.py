"""Rendering: facts in, one HTML page out."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.report import certainty, charts, tables

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Facts:
    """All that a report tells.

    model, version: name and number of the registered version. metrics: `report/metrics.json`. strategies:
    `models/fused/strategies.json`. students: `models/chosen/students.json`. recipe: of the sampler that is shipped.
    manifest: `data/prepared/manifest.json`. quarantine: the first quarantined files as (name, reason). histories: rows
    of `history.json` by member. pictures: PNG bytes by caption, in their order. nearest: PNG bytes of images beside
    their nearest training images, by what drew them. failed: why members failed, after how many thousand training
    images and in which rung, by name. lineage: what the result was made from, by name. details: longer lists of that,
    by title. race: `table.json` of each later rung, in their order. siblings: what became of those that
    members divided into in the last rung, as in `strategies.json`.
    """

    model: str
    version: str
    metrics: Mapping[str, Any]
    strategies: Mapping[str, Any]
    students: Mapping[str, Any]
    recipe: Mapping[str, Any]
    manifest: Mapping[str, Any]
    quarantine: Sequence[tuple[str, str]]
    histories: Mapping[str, Sequence[Mapping[str, float]]]
    pictures: Mapping[str, bytes]
    failed: Mapping[str, tuple[str, float, int]]
    lineage: Mapping[str, str]
    details: Mapping[str, Mapping[str, str]]
    nearest: Mapping[str, bytes]
    race: Sequence[Mapping[str, Any]] = ()
    siblings: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Curves:
    """One member's learning curves: series as (name, last value, colour), the images seen, the scale, the chart."""

    member: str
    legend: list[tuple[str, float, str]]
    kimg: float
    low: float
    high: float
    svg: Markup


def render(facts: Facts) -> str:
    """Return the report as one HTML page that loads nothing and runs no script; every text in it is escaped."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = tables.number
    shares = tables.shares(facts.recipe)
    return environment.get_template("report.html").render(
        facts=facts,
        css=Markup((FOLDER / "report.css").read_text(encoding="utf-8")),
        verdict=tables.verdict(facts.metrics, facts.recipe),
        headlines=tables.headlines(facts.metrics),
        differences=certainty.differences(facts.metrics),
        certainty=certainty.by_judge(facts.metrics),
        uncertain=certainty.without(facts.metrics),
        columns=tables.columns(facts.metrics),
        best=tables.best_values(facts.metrics),
        charts=[(metric, strategy_chart(facts.metrics, metric)) for metric in facts.metrics["headline"]],
        recipe_in_words=tables.recipe_in_words(facts.recipe),
        shares=[(name, share, charts.colour(i)) for i, (name, share) in enumerate(shares)],
        shares_svg=charts.stacked([share for _, share in shares]),
        evidence=tables.evidence_columns(facts.strategies),
        pictures={caption: png_address(content) for caption, content in facts.pictures.items()},
        nearest={name: png_address(content) for name, content in facts.nearest.items()},
        classes=tables.class_rows(facts.metrics["classes"]),
        curves=[learning_curves(member, rows) for member, rows in facts.histories.items() if rows],
    )


def strategy_chart(metrics: Mapping[str, Any], metric: str) -> list[charts.Bar]:
    """Return the bars of one metric, the nearest first."""
    rows = sorted(metrics["arms"], key=lambda arm: arm["metrics"][metric])

    def kind(arm: Mapping[str, Any]) -> str:
        return "winner" if arm is tables.shipped(metrics) else str(arm["kind"])

    return charts.bars([(arm["name"], arm["metrics"][metric], kind(arm)) for arm in rows], metrics["floor"].get(metric))


def learning_curves(member: str, rows: Sequence[Mapping[str, float]]) -> Curves:
    """Return a member's curves: every number of its history over the images seen."""
    names = [name for name in rows[-1] if name != "nimg"]
    series = [[float(row.get(name, float("nan"))) for row in rows] for name in names]
    x = [float(row["nimg"]) for row in rows]
    legend = [(name, values[-1], charts.colour(i)) for i, (name, values) in enumerate(zip(names, series, strict=True))]
    finite = [value for values in series for value in values if math.isfinite(value)] or [0.0]
    return Curves(member, legend, x[-1] / 1000, min(finite), max(finite), charts.lines(x, series))


def png_address(content: bytes) -> str:
    """Return a PNG as a data address."""
    return "data:image/png;base64," + base64.b64encode(content).decode()
