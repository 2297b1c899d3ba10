"""The sections `budget` and `racing` of `params.yaml`, and what they ask of the families."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from pipeline.params.fields import AUTO, Count, Positive, Section, Several

if TYPE_CHECKING:
    from pipeline.params.family import Family

# Their members are trained one by one and from nothing but their own state, so that a later rung can go on from it.
RACED_SCHEMES = ("independent", "bagging")


class Budget(Section):
    """What all families together may spend: `kimg` (training images in thousands) or `tflop` (10¹² operations).

    families: how many share it. It is said in the file as DVC can depend on a number there, and not on how many keys a
    section has: a family more or less changes everybody's share.
    """

    kimg: Positive | None = None
    tflop: Positive | None = None
    families: Count

    @model_validator(mode="after")
    def _one_unit(self) -> "Budget":
        if (self.kimg is None) == (self.tflop is None):
            raise ValueError("say the budget in one unit: either 'kimg' or 'tflop'")
        return self

    @property
    def amount(self) -> float:
        """The number, whatever its unit."""
        return self.kimg or self.tflop or 0.0


class Later(Section):
    """A later rung and the one that it follows. DVC cannot subtract, so both are said."""

    rung: Several
    after: Count


class Racing(Section):
    """Rungs after the first one, the share of families that goes on at each, and siblings of a member in the last.

    keep: `auto` lets half of them go on, and to the last rung as many as are foretold to make the nearest mixture.
    """

    rungs: list[Later] = Field(default=[])
    keep: Literal["auto"] | Annotated[float, Field(gt=0, lt=1, strict=True)] = AUTO
    branch: Count = 1

    @model_validator(mode="after")
    def _one_after_another(self) -> "Racing":
        wanted = [{"rung": rung, "after": rung - 1} for rung in range(2, 2 + len(self.rungs))]
        if [later.model_dump() for later in self.rungs] != wanted:
            written = ", ".join(f"{{rung: {later['rung']}, after: {later['after']}}}" for later in wanted)
            raise ValueError(f"rungs follow one another from 2 on: write rungs: [{written}]")
        if self.branch > 1 and not self.rungs:
            raise ValueError("'branch' divides members in the last of several rungs, and 'rungs' names none")
        return self


def complaint(budget: Budget | None, racing: Racing, families: "Mapping[str, Family]") -> str | None:
    """Return what is wrong between the budget, the race and the families; None where they fit."""
    if budget is None:
        if racing.rungs:
            return f"racing.rungs share a budget: set 'budget', for instance {{kimg: 2000, families: {len(families)}}}"
        if missing := [name for name, family in families.items() if not family.kimg]:
            return f"families.{missing[0]}.kimg: missing; say how long to train, or set a 'budget' for all families"
        return None
    if budget.families != len(families):
        return (
            f"budget.families = {budget.families}, and there are {len(families)} families: set it to {len(families)}; "
            "everybody's share changes with it, so all are trained anew"
        )
    short = [name for name, family in families.items() if racing.rungs and family.snapshots < 2]
    if short and racing.keep == AUTO:
        return (
            f"racing.keep = 'auto' reads how fast a family learns off its last two snapshots: set "
            f"families.{short[0]}.snapshots to 2 or more, or racing.keep to a share, as 0.5"
        )
    unfit = [name for name, family in families.items() if racing.rungs and family.scheme not in RACED_SCHEMES]
    if unfit:
        return (
            f"families.{unfit[0]}.scheme = '{families[unfit[0]].scheme}': only members that train alone are raced "
            f"({', '.join(RACED_SCHEMES)}); empty racing.rungs, or change the scheme"
        )
    return None
