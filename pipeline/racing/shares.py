"""Who may spend how much of the budget: a first rung for everybody, then equal parts for those that go on."""

import math

from pipeline.errors import ChorusError
from pipeline.params import AUTO, Budget, Params

HALF = 0.5  # as in Jamieson and Talwalkar 2016, algorithm 1


def rungs(params: Params) -> int:
    """Return how many rungs there are, the first included."""
    return 1 + len(params.racing.rungs)


def survivors(params: Params, families: int) -> int:
    """Return how many of `families` go on to the next rung: ⌈keep · families⌉, with `auto` a half of them.

    How many go on to the last rung, `auto` takes from `pipeline.racing.prospects`.
    """
    share = HALF if params.racing.keep == AUTO else params.racing.keep
    # Rounded first: 0.7 · 10 is 7.000000000000001 in floating point.
    return max(1, math.ceil(round(share * families, 9)))


def member_kimg(params: Params, family: str, flops: float) -> float:
    """Return how many thousand images each replica of `family` sees in the first rung.

    Without a budget that is the family's own `kimg`. flops: operations that one of its training images costs; read
    where the budget counts operations. Raises `ChorusError` where the share is less than a batch.
    """
    if params.budget is None:
        return params.families[family].kimg
    return rung_kimg(params, family, len(params.families), params.families[family].replicas, flops)


def rung_kimg(params: Params, family: str, families: int, members: int, flops: float) -> float:
    """Return how many thousand images each of a family's `members` sees in a rung that `families` share evenly.

    Every rung spends the same part of the budget. Raises `ChorusError` where a member's share is less than a batch.
    """
    assert params.budget is not None
    share = params.budget.amount / rungs(params) / families / members
    kimg = share if params.budget.tflop is None else share * 1e9 / flops
    if kimg * 1000 < params.families[family].batch:
        raise ChorusError(
            f"budget: {_told(params.budget)} leave a member of '{family}' {1000 * kimg:.0f} images in one of "
            f"{rungs(params)} rungs, less than a batch; give more, or have fewer families, replicas or rungs"
        )
    return kimg


def branched(params: Params, family: str, kimg: float) -> tuple[float, float]:
    """Return how many of a member's `kimg` in the last rung it goes on with itself, and how many each sibling gets.

    One half goes into the member's plain continuation, the other into its siblings: both have then spent the same from
    the same state, so that what is measured says which was worth it. Raises `ChorusError` for less than a batch.
    """
    each = kimg / 2 / params.racing.branch
    if each * 1000 < params.families[family].batch:
        raise ChorusError(
            f"racing.branch = {params.racing.branch}: a sibling in '{family}' gets {1000 * each:.0f} images, less than "
            "a batch; have fewer siblings, or give a larger budget"
        )
    return kimg / 2, each


def _told(budget: Budget) -> str:
    return f"{budget.kimg:g} kimg" if budget.kimg is not None else f"{budget.tflop:g} TFLOP"
