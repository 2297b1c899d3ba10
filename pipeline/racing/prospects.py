"""How many families the last rung carries: few that train long, or more of them that mix and train less each."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.evaluation.frechet import Views
from pipeline.fusion.mixture import MeanDistance
from pipeline.fusion.simplex import minimise
from pipeline.racing.decide import PRECISION

# Of a learning curve's steepness over its last doubling, what is left of it while training goes on to two and a half to
# four times as many images: 0.77 and 0.66 on average in ten repetitions of docs/benchmarks.md's study.
BEND = 0.7


@dataclass(frozen=True)
class Course:
    """How a family has learnt: its members' distance falls as images^−steepness, and each has seen so many images."""

    steepness: float
    seen: float

    @classmethod
    def of(cls, members: Iterable[Mapping[int, float]]) -> "Course":
        """Read it off each member's last snapshot and the one nearest to half of its images: over less, noise rules.

        members: of each the distances by images seen, one snapshot at least. Members with a single one say nothing of
        the steepness, which is 0 where all are such, or where they came no nearer.
        """
        slopes, seen = [], []
        for distances in members:
            *before, last = sorted(distances)
            seen.append(last)
            if not before:
                continue
            half = min(before, key=lambda images: abs(math.log(2 * images / last)))
            if distances[half] > 0 and distances[last] > 0:
                slopes.append(math.log(distances[half] / distances[last]) / math.log(last / half))
        return cls(max(0.0, sum(slopes) / len(slopes)) if slopes else 0.0, sum(seen) / len(seen))

    def shrinks(self, images: float) -> float:
        """Return the factor by which so many more images for each member bring it nearer."""
        return float((1 + images / self.seen) ** (-BEND * self.steepness))


def foretell(
    order: Sequence[str],
    pool: Mapping[str, Sequence[Views]],
    real: Views,
    courses: Mapping[str, Course],
    images: Callable[[str, int], float],
) -> list[float]:
    """Return which distance the best mixture of the first 1, 2, … families of `order` will have if they alone go on.

    images: how many each member of a family would see if so many families went on. The best mixture of what these
    families have now comes nearer as each of its parts does by its own course. So what mixing gains stays the share of
    the distance that it is now, as it does where errors shrink and remain as unlike as they are.
    """
    found = []
    for count in range(1, len(order) + 1):
        staying = [(family, views) for family in order[:count] for views in pool[family]]
        distance = MeanDistance.of([views for _, views in staying], real, unbiased=True)
        mixture = minimise(distance, len(staying), tolerance=PRECISION)
        shrinks = {family: courses[family].shrinks(images(family, count)) for family in order[:count]}
        parts = zip(mixture.weights, staying, strict=True)
        found.append(mixture.value * sum(float(weight) * shrinks[family] for weight, (family, _) in parts))
    return found
