"""Which strategy wins: the nearest of those that beat all that is cheaper beyond the noise, by every ruler."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.evaluation.intervals import Estimate, difference

SAME_COST = 1.05  # up to which ratio two samplers cost the same


@dataclass(frozen=True)
class Entrant:
    """A strategy, measured by fresh samples on the part of `val` that nothing was fitted to.

    cost: passes of its generator that an image takes. distance: the one that decides. estimates: by each ruler that
    decides, how sure it is; None where there are too few images to say.
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

    It is the nearest of those without a rival. Each is compared with all that are cheaper and never with a leader that
    changes, so that many small steps in cost are no way around the rule. Equal distances go to the cheaper one, then by
    name. The cheapest has no rival.
    """
    eligible = [entrant for entrant in entrants if not rivals(entrant, entrants)]
    return min(eligible, key=lambda entrant: (entrant.distance, entrant.cost, entrant.name))


def rivals(entrant: Entrant, entrants: Sequence[Entrant]) -> list[Entrant]:
    """Return those that cost less and that it is not surely nearer than, the cheapest first."""
    found = [other for other in entrants if entrant.costs_more(other) and not entrant.surely_nearer(other)]
    return sorted(found, key=lambda other: (other.cost, other.name))


def verdict(entrant: Entrant, winner: Entrant, entrants: Sequence[Entrant]) -> str:
    """Say in words how an entrant came out."""
    if entrant is winner:
        return "the winner"
    if found := rivals(entrant, entrants):
        name = winner.name if winner in found else found[0].name
        if entrant.estimates is None:
            return f"costs more than {name}, and there are too few images to be sure that it is nearer"
        return f"not surely nearer than {name} by every ruler, and costs more"
    if winner.costs_more(entrant):
        return f"{winner.name} is nearer beyond the noise"
    return f"{winner.name} is nearer" + " at the same cost" * (not entrant.costs_more(winner))
