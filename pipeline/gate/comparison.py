"""How much farther from the real images the candidate is than the champion: by each judge, and by all together."""

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.evaluation.certainty import told
from pipeline.evaluation.intervals import Estimate, difference, interval, mean_of

TOGETHER = "rfd_judges"  # mean over the judges, each relative to the real images' variance, as `rfd_selection` is


def compare(
    candidate: Mapping[str, Estimate], champion: Mapping[str, Estimate], spreads: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return a row for all judges together (`TOGETHER`), then one for each.

    A judge `without` enough images has no row, and then there is none for all together. candidate, champion: estimates
    against the same real images, by metric. spreads: by each judge's metric, what makes distances comparable.
    A row: metric, the two distances and their difference (negative where the candidate is nearer) with their intervals.
    All distances are without their bias.
    """
    names = [name for name in spreads if name in candidate and name in champion]
    each = [_row(name, candidate[name], champion[name]) for name in names]
    if without(candidate, champion, spreads):
        return each
    together = [mean_of([side[name] for name in names], list(spreads.values())) for side in (candidate, champion)]
    return [_row(TOGETHER, together[0], together[1]), *each]


def without(candidate: Mapping[str, Estimate], champion: Mapping[str, Estimate], spreads: Iterable[str]) -> list[str]:
    """Return the metrics of the judges, all of which `spreads` names, that have no estimate of either side."""
    return [name for name in spreads if name not in candidate or name not in champion]


def _row(metric: str, candidate: Estimate, champion: Estimate) -> dict[str, Any]:
    apart = difference(candidate, champion)
    return {
        "metric": metric,
        "candidate": told(interval(candidate)),
        "champion": told(interval(champion)),
        "difference": told(apart) | {"beyond_noise": apart.beyond_noise},
    }
