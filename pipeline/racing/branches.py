"""Siblings against the plain continuation of the member that they come from: which was worth what both cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.evaluation.frechet import Views
from pipeline.fusion.mixture import MeanDistance
from pipeline.fusion.simplex import minimise
from pipeline.racing.decide import PRECISION


@dataclass(frozen=True)
class Branching:
    """What a family's last rung gave: distances of the best mixture with the one half of it, and with the other.

    plain: with the members' plain continuations. siblings: with their siblings instead. Each half cost the same.
    """

    family: str
    plain: float
    siblings: float

    @property
    def kept(self) -> bool:
        """Whether the siblings stay candidates."""
        return self.siblings < self.plain


def compare(
    rest: Sequence[Views],
    plain: Mapping[str, Sequence[Views]],
    siblings: Mapping[str, Sequence[Views]],
    fit: Views,
    choose: Views,
) -> list[Branching]:
    """Return how each family's siblings compare; the others' plain continuations stand beside both.

    rest: the candidates of all rungs before. plain, siblings: those of the last rung by family. The mixtures' weights
    are found on the real images `fit` and measured on `choose`, as one half may have more candidates to choose from.
    """
    found = []
    for family, own in siblings.items():
        others = [*rest, *(views for name, parts in plain.items() if name != family for views in parts)]
        halves = [distance_on([*others, *half], fit, choose) for half in (plain.get(family, ()), own)]
        found.append(Branching(family, *halves))
    return found


def distance_on(parts: Sequence[Views], fit: Views, choose: Views) -> float:
    """Return the Fréchet distance from `choose` of the mixture that is nearest to `fit`."""
    weights = minimise(MeanDistance.of(parts, fit, unbiased=True), len(parts), tolerance=PRECISION).weights
    return MeanDistance.of(parts, choose, unbiased=True).value(weights)
