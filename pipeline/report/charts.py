"""Small charts as inline SVG; labels stay HTML beside them, so that they are readable on a phone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 300, 120  # of a line chart, in SVG units
CUT = 3  # bars longer than this many times the median one are cut, else one bad arm flattens all others


@dataclass(frozen=True)
class Bar:
    """One row of a chart: what it shows in words, number and picture, for the label and the number stay HTML.

    kind: a CSS class. cut: the value goes beyond the chart's end. note: a word that stands behind the number.
    """

    label: str
    value: float
    kind: str
    svg: Markup
    cut: bool
    note: str = ""


@dataclass(frozen=True)
class Span:
    """One row of a chart of intervals: a value within low and high, and beside it what was measured."""

    label: str
    kind: str
    value: float
    low: float
    high: float
    measured: float
    note: str


def colour(index: int) -> str:
    """Return the colour of series `index`: hues a golden angle apart, legible on light and on dark."""
    return f"hsl({(212 + 137.5 * index) % 360:.0f} 60% 52%)"


def bars(rows: Sequence[tuple[str, float, str]], floor: float | None = None) -> list[Bar]:
    """Lay out a bar chart from zero; negative values get no bar.

    rows: (label, value, kind), kind being a CSS class. floor: a value marked by a line across every bar. Values that
    are not finite get no bar.
    """
    finite = sorted(value for _, value, _ in rows if math.isfinite(value))
    if not finite:
        return [Bar(label, value, kind, Markup(), False) for label, value, kind in rows]
    end = max(min(finite[-1], CUT * finite[len(finite) // 2]), floor or 0.0, 1e-12)
    return [
        Bar(label, value, kind, _bar(value / end, kind, None if floor is None else floor / end), value > end)
        for label, value, kind in rows
    ]


def _bar(share: float, kind: str, floor: float | None) -> Markup:
    width = 100 * min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
    mark = Markup()
    if floor is not None and math.isfinite(floor):
        x = f"{100 * min(max(floor, 0.0), 1.0):.2f}"
        mark = Markup('<line class="floor" x1="{0}" x2="{0}" y1="0" y2="10"/>').format(x)
    return Markup(
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="{}" width="{}" height="10"/>{}</svg>'
    ).format(kind, f"{width:.2f}", mark)


def spans(rows: Sequence[Span], reference: float) -> tuple[list[Bar], tuple[float, float]]:
    """Lay out a chart of intervals and return its rows and both ends of its scale, of which one is mostly zero.

    rows: at least one. reference: a value marked by a line across every row.
    """
    values = sorted(row.value for row in rows)
    far = CUT * max(values[len(values) // 2], reference, 0.0)
    start = min(0.0, *(row.low for row in rows))
    end = max(1e-12, reference, *(row.high for row in rows if row.value <= far))

    def place(value: float) -> str:
        return f"{100 * min(max((value - start) / (end - start), 0.0), 1.0):.2f}"

    def picture(row: Span) -> Markup:
        return Markup(
            '<svg class="span {}" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
            '<line class="reference" x1="{r}" x2="{r}" y1="0" y2="10"/><line x1="{}" x2="{}" y1="5" y2="5"/>'
            '<path class="measured" d="M{} 5h0"/><path class="dot" d="M{} 5h0"/></svg>'
        ).format(row.kind, *map(place, (row.low, row.high, row.measured, row.value)), r=place(reference))

    return [Bar(row.label, row.value, row.kind, picture(row), row.value > end, row.note) for row in rows], (start, end)


def points(values: Sequence[tuple[float | None, str]]) -> Markup:
    """Return shares from 0 to 1 as points on one line, each as (share, CSS class); None leaves a point out."""
    dots = Markup().join(
        Markup('<path class="dot {}" d="M{} 5h0"/>').format(kind, f"{100 * share:.2f}")
        for share, kind in reversed(values)
        if share is not None
    )
    return Markup(
        '<svg class="points" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<line x1="0" x2="100" y1="5" y2="5"/>{}</svg>'
    ).format(dots)


def stacked(shares: Sequence[float]) -> Markup:
    """Return one bar divided in proportion to `shares` (non-negative), coloured by `colour`."""
    total = sum(shares) or 1.0
    pieces, left = Markup(), 0.0
    for index, share in enumerate(shares):
        width = 100 * share / total
        pieces += Markup('<rect x="{}" width="{}" height="10" fill="{}"/>').format(
            f"{left:.3f}", f"{width:.3f}", colour(index)
        )
        left += width
    return Markup(
        '<svg class="stacked" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">{}</svg>'
    ).format(pieces)


def lines(series: Sequence[Sequence[tuple[float, float]]]) -> Markup:
    """Return a line chart of series of (x, y), all on one linear scale; values that are not finite leave a gap."""
    values = [value for one in series for _, value in one if math.isfinite(value)]
    if not values:
        return Markup()
    low, high = min(values), max(values)
    x = [position for one in series for position, _ in one]
    x_low, x_span = min(x), (max(x) - min(x)) or 1.0
    paths = Markup()
    for index, one in enumerate(series):
        path, pen_down = "", False
        for position, value in one:
            if math.isfinite(value):
                across = WIDTH * (position - x_low) / x_span
                down = HEIGHT * (1 - (value - low) / ((high - low) or 1.0))
                path += f"{'L' if pen_down else 'M'}{across:.1f} {down:.1f}"
            pen_down = math.isfinite(value)
        paths += Markup('<path d="{}" stroke="{}"/>').format(path, colour(index))
    return Markup(
        '<svg class="lines" viewBox="0 -2 {} {}" preserveAspectRatio="none" aria-hidden="true">{}</svg>'
    ).format(WIDTH, HEIGHT + 4, paths)
