"""How sure the judges' distances are, and the differences between the arms, as metrics.json tells them."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.evaluation.features import Features
from pipeline.evaluation.intervals import (
    CONFIDENCE,
    IMAGES_A_DIMENSION,
    Estimate,
    Interval,
    difference,
    enough,
    estimate,
    interval,
)
from pipeline.evaluation.ruler import Ruler


def estimates_of(
    found: Mapping[str, Features], real: Mapping[str, Features], rulers: Mapping[str, Ruler], names: Sequence[str]
) -> dict[str, Estimate]:
    """Return an arm's distance by each of these extractors with the influences of all images, by the metric's name.

    found, real: features of the arm's images and of the real ones, rulers: by the extractor's name. One with too
    few images for its dimensions is left out.
    """
    return {
        rulers[name].name: estimate(found[name], real[name], rulers[name])
        for name in names
        if enough(len(found[name]), len(real[name]), dims_of(found[name], rulers[name]))
    }


def dims_of(features: Features, ruler: Ruler) -> int:
    """Return the dimensions that a ruler measures these features in."""
    return ruler.dims or int(features.values.shape[1])


def intervals_of(
    arms: Sequence[Mapping[str, Any]], estimates: Sequence[Mapping[str, Estimate]], best_member: str
) -> dict[str, Any]:
    """Return `intervals` of metrics.json: each arm's distances, and by how much it is farther than the best member.

    arms: with `name` and `kind`, in the order of their estimates. The best member itself has no differences.
    """
    against = next(
        own for arm, own in zip(arms, estimates, strict=True) if (arm["kind"], arm["name"]) == ("member", best_member)
    )
    return {
        "confidence": CONFIDENCE,
        "images_a_dimension": IMAGES_A_DIMENSION,
        "arms": [
            {
                "name": arm["name"],
                "kind": arm["kind"],
                "distances": {metric: told(interval(one)) for metric, one in own.items()},
                "differences": {} if own is against else differences(own, against),
            }
            for arm, own in zip(arms, estimates, strict=True)
        ],
    }


def differences(own: Mapping[str, Estimate], against: Mapping[str, Estimate]) -> dict[str, Any]:
    """Return by how much one arm is farther than another by each judge, and whether noise could have made that."""
    found = {metric: difference(one, against[metric]) for metric, one in own.items()}
    return {metric: told(apart) | {"beyond_noise": apart.beyond_noise} for metric, apart in found.items()}


def told(found: Interval) -> dict[str, float]:
    """Return an interval as JSON."""
    errors = {"redraws": found.redraws, "real": found.real}
    return {"value": found.value, "low": found.low, "high": found.high, **errors}
