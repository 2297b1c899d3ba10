"""Small charts as inline SVG; labels stay HTML beside them, so that they are readable on a phone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 300, 120  # of a line chart, in SVG units
CUT = 3  # bars longer than this many times the median one are cut, else one bad arm flattens all others


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart; `cut` says that the value goes beyond the chart's end."""

    label: str
    value: float
    kind: str
    svg: Markup
    cut: bool


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


def lines(x: Sequence[float], series: Sequence[Sequence[float]]) -> Markup:
    """Return a line chart of `series` over `x`, all on one linear scale; values that are not finite leave a gap."""
    values = [value for one in series for value in one if math.isfinite(value)]
    if not values:
        return Markup()
    low, high = min(values), max(values)
    x_low, x_span = min(x), (max(x) - min(x)) or 1.0
    paths = Markup()
    for index, one in enumerate(series):
        path, pen_down = "", False
        for position, value in zip(x, one, strict=True):
            if math.isfinite(value):
                across = WIDTH * (position - x_low) / x_span
                down = HEIGHT * (1 - (value - low) / ((high - low) or 1.0))
                path += f"{'L' if pen_down else 'M'}{across:.1f} {down:.1f}"
            pen_down = math.isfinite(value)
        paths += Markup('<path d="{}" stroke="{}"/>').format(path, colour(index))
    return Markup(
        '<svg class="lines" viewBox="0 -2 {} {}" preserveAspectRatio="none" aria-hidden="true">{}</svg>'
    ).format(WIDTH, HEIGHT + 4, paths)
