"""Rendering: facts in, one HTML page out."""

import base64
import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.params.redaction import redact
from pipeline.report import certainty, charts, drift, tables

FOLDER = Path(__file__).parent
EXAMINED = ("real", "winner", "member")  # CSS classes of the arms that are looked at closely, in their order


@dataclass(frozen=True)
class Facts:
    """All that a report tells.

    model, version: name and number of the registered version. metrics: `report/metrics.json`. gate:
    `report/gate.json`. sides: PNG bytes of the champion's and the candidate's images of the same latents. strategies:
    `models/fused/strategies.json`. students: `models/chosen/students.json`. recipe: of the sampler that is shipped.
    manifest: `data/prepared/manifest.json`. quarantine: the first quarantined files as (name, reason). histories: rows
    of `history.json` by member. pictures: PNG bytes by caption, in their order. nearest: PNG bytes of images beside
    their nearest training images, by what drew them. failed: why members failed, after how many thousand training
    images and in which rung, by name. lineage: what the result was made from, by name. details: longer lists of that,
    by title. race: `table.json` of each later rung, in their order. siblings: what became of those that
    members divided into in the last rung, as in `strategies.json`. drift: how the data differ from those of another
    version, as `pipeline.stages._drift` tells it. links: addresses of what the lineage names, by the same names.
    """

    model: str
    version: str
    metrics: Mapping[str, Any]
    gate: Mapping[str, Any]
    sides: Mapping[str, bytes]
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
    drift: Mapping[str, Any] | None = None
    links: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plot:
    """One number of a family's members over the images seen, and the ends of its scale."""

    name: str
    low: float
    high: float
    svg: Markup


@dataclass(frozen=True)
class Curves:
    """A family's learning curves: how long it was trained, its members with their colours, a plot for each number."""

    family: str
    kimg: float
    members: list[tuple[str, str]]
    plots: list[Plot]


def render(facts: Facts) -> str:
    """Return the report as one HTML page that loads nothing; every text in it is escaped, and no credentials are in it.

    Its one script sorts tables. The page's policy names the script by its hash, so no other one would run.
    """
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": tables.number, "contents": contents}
    shares = tables.shares(facts.recipe)
    script = (FOLDER / "report.js").read_text(encoding="utf-8")
    page: str = environment.get_template("report.html").render(
        facts=facts,
        css=Markup((FOLDER / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        verdict=tables.verdict(facts.metrics, facts.recipe, facts.strategies),
        headlines=[(row, headline_bars(row, facts.metrics)) for row in tables.headlines(facts.metrics)],
        differences=certainty.differences(facts.metrics),
        certainty=certainty.by_judge(facts.metrics),
        uncertain=certainty.without(facts.metrics),
        columns=tables.columns(facts.metrics),
        best=tables.best_values(facts.metrics),
        charts=[(metric, *distance_chart(facts.metrics, metric)) for metric in facts.metrics["headline"]],
        recipe_in_words=tables.recipe_in_words(facts.recipe),
        shares=[(name, share, charts.colour(i)) for i, (name, share) in enumerate(shares)],
        shares_svg=charts.stacked([share for _, share in shares]),
        evidence=[name for name in tables.evidence_columns(facts.strategies) if name not in tables.SCORES],
        pictures={caption: png_address(content) for caption, content in facts.pictures.items()},
        sides={caption: png_address(content) for caption, content in facts.sides.items()},
        nearest={name: png_address(content) for name, content in facts.nearest.items()},
        classes=[(row, covered(row)) for row in tables.class_rows(facts.metrics["classes"])],
        examined=EXAMINED,
        curves=learning_curves(facts.histories),
        drift=drift.told(facts.drift, facts.manifest),
    )
    return page


def shown(value: object) -> object:
    """Take credentials out of a text before it is escaped, for what is escaped is not what the environment holds."""
    return redact(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def contents(page: Markup) -> list[tuple[str, Markup]]:
    """Return place and title of each section, as a page's second headings have them."""
    return [(place, Markup(title)) for place, title in re.findall(r'<h2 id="([\w-]+)">(.+?)</h2>', page)]


def headline_bars(row: tables.Headline, metrics: Mapping[str, Any]) -> list[charts.Bar]:
    """Return a judge's verdict as bars: what is shipped, the best member, real images."""
    found = [("this version", row.shipped, "winner"), (metrics["best_member"], row.member, "member")]
    if row.floor is not None:
        found.append(("real images", row.floor, "real"))
    return charts.bars(found)


def distance_chart(metrics: Mapping[str, Any], metric: str) -> tuple[list[charts.Bar], tuple[float, float] | None]:
    """Return all arms by one judge, the nearest first: with intervals and a scale's ends where there are any intervals,
    else as bars of what was measured.
    """
    own = metrics["shipped"]
    sure = certainty.by_judge(metrics).get(metric)

    def kind(arm: Mapping[str, Any]) -> str:
        return "winner" if all(arm[key] == own[key] for key in ("kind", "name")) else str(arm["kind"])

    if sure is None:
        rows = sorted(metrics["arms"], key=lambda arm: arm["metrics"][metric])
        bars = [(arm["name"], arm["metrics"][metric], kind(arm)) for arm in rows]
        return charts.bars(bars, metrics["floor"].get(metric)), None
    reference = next(row for row in sure if row.difference is None)
    return charts.spans([span(row, kind({"kind": row.kind, "name": row.name})) for row in sure], reference.value)


def span(row: certainty.Row, kind: str) -> charts.Span:
    """Return an arm's distance and interval as a row of a chart."""
    note = ("noise" if row.verdict == certainty.WITHIN else row.verdict) if row.difference else ""
    return charts.Span(row.name, kind, row.value, row.distance["low"], row.distance["high"], row.measured, note)


def covered(row: tables.ClassRow) -> Markup:
    """Return how much of a class each arm covers as points on a line."""
    return charts.points([(share, kind) for (share, _), kind in zip(row.arms, EXAMINED, strict=False)])


def learning_curves(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Curves]:
    """Return each family's curves: every number of its members' histories (by FAMILY/MEMBER) over the images seen."""
    families: dict[str, dict[str, Sequence[Mapping[str, float]]]] = {}
    for member, rows in histories.items():
        if rows:
            family, _, name = member.rpartition("/")
            families.setdefault(family, {})[name] = rows
    return [family_curves(family, members) for family, members in families.items()]


def family_curves(family: str, members: Mapping[str, Sequence[Mapping[str, float]]]) -> Curves:
    """Return one family's curves: a plot for each number, a line in it for each member."""
    names = dict.fromkeys(name for rows in members.values() for name in rows[-1] if name != "nimg")
    plots = []
    for name in names:
        series = [[(float(row["nimg"]), float(row.get(name, math.nan))) for row in rows] for rows in members.values()]
        finite = [value for one in series for _, value in one if math.isfinite(value)] or [math.nan]
        plots.append(Plot(name, min(finite), max(finite), charts.lines(series)))
    kimg = max(float(rows[-1]["nimg"]) for rows in members.values()) / 1000
    return Curves(family, kimg, [(name, charts.colour(i)) for i, name in enumerate(members)], plots)


def png_address(content: bytes) -> str:
    """Return a PNG as a data address."""
    return "data:image/png;base64," + base64.b64encode(content).decode()
