"""Successive halving over families: which of them the mixture can best do without."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.evaluation.frechet import Views, mean_distance
from pipeline.fusion.mixture import MeanDistance
from pipeline.fusion.simplex import minimise

TOLERANCE = 1e-3  # of the mixture's distance: gains below count as none
PRECISION = 1e-6  # to which the mixtures' weights are found; distances are relative, so below 1


@dataclass(frozen=True)
class Standing:
    """How a family came out of a rung.

    best: distance of its nearest candidate alone. gain: how much farther away the best mixture is without the family,
    measured beside the families that were left when it was decided on (None: it was the only one). place: 1 for the
    family that is needed most. goes_on: whether it is among those that are kept.
    """

    family: str
    best: float
    gain: float | None
    place: int
    goes_on: bool


def reason(standing: Standing) -> str:
    """Say why a family goes on, or does not."""
    if standing.gain is None:
        return "the last one left"
    if standing.gain:
        farther = f"without it the best mixture is farther away by {standing.gain:.3g}"
        return farther if standing.goes_on else f"{farther}, which is the least"
    return "the best mixture is as near without it" + (", and it is among the nearest alone" * standing.goes_on)


def halve(pool: Mapping[str, Sequence[Views]], real: Views, keep: int) -> list[Standing]:
    """Return the standings of all families, the one that is needed most first; `keep` of them go on.

    pool: what the rulers see of each family's candidates, at least one each. real: what they see of the real images.

    Successive halving (Jamieson and Talwalkar 2016, algorithm 1) with a family's marginal gain to the mixture in place
    of its own loss. Families leave one by one, and the gains of the others are then measured anew: of two that can
    replace one another neither gains anything beside the other, yet one of them must stay. Where several gains count
    as none, the family whose own best candidate is farthest leaves first.
    """
    alone = {family: min(mean_distance(own, real) for own in pool[family]) for family in pool}
    left, dropped = dict(pool), []
    while len(left) > keep:
        gains = marginal_gains(left, real)
        least = min(left, key=lambda family: (gains[family] or 0.0, -alone[family], family))
        dropped.append(Standing(least, alone[least], gains[least], len(left), False))
        del left[least]
    gains = marginal_gains(left, real)
    order = sorted(left, key=lambda family: (-(gains[family] or 0.0), alone[family], family))
    kept = [Standing(family, alone[family], gains[family], place, True) for place, family in enumerate(order, 1)]
    return kept + dropped[::-1]


def marginal_gains(pool: Mapping[str, Sequence[Views]], real: Views) -> dict[str, float | None]:
    """Return how much each family brings the best mixture nearer: D(best without it) − D(best of all).

    Gains below `TOLERANCE` of the distance, or below what weights are found to, are 0; a family that is alone has None.
    """
    if len(pool) == 1:
        return dict.fromkeys(pool)
    whole = best_distance([own for family in pool.values() for own in family], real)
    found: dict[str, float | None] = {}
    for family in pool:
        rest = best_distance([own for name in pool if name != family for own in pool[name]], real)
        found[family] = rest - whole if rest - whole > max(TOLERANCE * abs(whole), PRECISION) else 0.0
    return found


def best_distance(parts: Sequence[Views], real: Views) -> float:
    """Return the Fréchet distance of the best mixture of `parts`."""
    return minimise(MeanDistance.of(parts, real, unbiased=True), len(parts), tolerance=PRECISION).value
