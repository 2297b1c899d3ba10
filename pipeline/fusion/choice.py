"""Which strategy wins: the nearest of the cheapest, unless a costlier one is nearer beyond the noise by every ruler."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.evaluation.intervals import Estimate, difference

SAME_COST = 1.05  # up to which ratio two samplers cost the same


@dataclass(frozen=True)
class Entrant:
    """A strategy, measured by fresh samples on the part of `val` that nothing was fitted to.

    cost: network passes an image. distance: the one that decides. estimates: by each ruler that decides, how sure it
    is; None where there are too few images to say.
    """

    name: str
    cost: float
    distance: float
    estimates: tuple[Estimate, ...] | None

    def costs_more(self, other: "Entrant") -> bool:
        """Whether it takes more passes than the other, beyond `SAME_COST`."""
        return self.cost > SAME_COST * other.cost

    def surely_nearer(self, other: "Entrant") -> bool:
        """Whether it is nearer than the other by every ruler, at 95 % confidence by each."""
        if self.estimates is None or other.estimates is None:
            return False
        pairs = zip(self.estimates, other.estimates, strict=True)
        return all(difference(own, others).high < 0 for own, others in pairs)


def choose(entrants: Sequence[Entrant]) -> Entrant:
    """Return the winner; at least one takes part.

    They come forward by what they cost, and of equal cost the nearest first: each takes the lead that is nearer at the
    same cost, or costs more and is surely nearer. Equal distances go to the cheaper one, then by name.
    """
    first, *others = sorted(entrants, key=lambda entrant: (entrant.cost, entrant.distance, entrant.name))
    leader = first
    for entrant in others:
        if entrant.surely_nearer(leader) if entrant.costs_more(leader) else entrant.distance < leader.distance:
            leader = entrant
    return leader


def verdict(entrant: Entrant, winner: Entrant) -> str:
    """Say in words how an entrant came out."""
    if entrant is winner:
        return "the winner"
    if entrant.costs_more(winner):
        if entrant.estimates is None:
            return f"costs more than {winner.name}, and there are too few images to be sure that it is nearer"
        return f"not surely nearer than {winner.name} by every ruler, and costs more"
    if winner.costs_more(entrant):
        return f"{winner.name} is nearer" + " beyond the noise" * winner.surely_nearer(entrant)
    return f"{winner.name} is nearer at the same cost"
