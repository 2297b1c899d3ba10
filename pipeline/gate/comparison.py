"""How much farther from the real images the candidate is than the champion: by each judge, and by all together."""

from collections.abc import Mapping
from typing import Any

from pipeline.evaluation.certainty import told
from pipeline.evaluation.intervals import Estimate, difference, interval, mean_of

TOGETHER = "rfd_judges"  # mean over the judges, each relative to the real images' variance, as `rfd_selection` is


def compare(
    candidate: Mapping[str, Estimate], champion: Mapping[str, Estimate], spreads: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return a row for all judges together (`TOGETHER`), then one for each; none where no judge has enough images.

    candidate, champion: estimates against the same real images, by metric. spreads: by metric, what makes the judges'
    distances comparable. A row: metric, the two distances and their difference (negative where the candidate is
    nearer) with their intervals. All distances are without their bias.
    """
    names = [name for name in candidate if name in champion]
    if not names:
        return []
    shares = [spreads[name] for name in names]
    together = [mean_of([side[name] for name in names], shares) for side in (candidate, champion)]
    return [
        _row(TOGETHER, together[0], together[1]),
        *(_row(name, candidate[name], champion[name]) for name in names),
    ]


def _row(metric: str, candidate: Estimate, champion: Estimate) -> dict[str, Any]:
    apart = difference(candidate, champion)
    return {
        "metric": metric,
        "candidate": told(interval(candidate)),
        "champion": told(interval(champion)),
        "difference": told(apart) | {"beyond_noise": apart.beyond_noise},
    }
