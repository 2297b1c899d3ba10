"""Nobody spends more than the budget, whatever the numbers."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ChorusError
from pipeline.params import Params
from pipeline.racing.shares import branched, member_kimg, rung_kimg, rungs, survivors


def params(batches: list[int], replicas: list[int], later: int = 0, keep: float | str = 0.5, **budget: float) -> Params:
    families = {
        f"f{i}": {"architecture": "mlp", "batch": batch, "replicas": count, "snapshots": 2}
        for i, (batch, count) in enumerate(zip(batches, replicas, strict=True))
    }
    content = {
        "data": {"source": "digits", "watch": "unused", "size": 8},
        "families": families,
        "budget": {**budget, "families": len(families)} if budget else None,
        "racing": {"rungs": [{"rung": 2 + i, "after": 1 + i} for i in range(later)], "keep": keep},
    }
    return Params.model_validate(content)


numbers = st.lists(st.tuples(st.integers(2, 64), st.integers(1, 4), st.floats(1e6, 1e10)), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(numbers, st.integers(0, 4), st.floats(0.05, 0.95), st.floats(2e4, 1e6), st.booleans())
def test_all_rungs_together_keep_to_the_budget(families, later, keep, kimg, in_operations) -> None:
    """What members see in whole steps is at most the budget and a batch each, also when everybody's share is used."""
    batches, replicas, flops = map(list, zip(*families, strict=True))
    amount = {"tflop": kimg * 1e-9 * sum(flops)} if in_operations else {"kimg": kimg}
    made = params(batches, replicas, later, keep, **amount)
    cost = flops if in_operations else [1.0] * len(flops)
    total = [member_kimg(made, f"f{i}", flops[i]) for i in range(len(flops))]
    left = len(flops)
    for _ in range(later):
        left = survivors(made, left)
        for i in range(left):
            total[i] += rung_kimg(made, f"f{i}", left, replicas[i], flops[i])
    seen = [math.ceil(1000 * t / batch) * batch for t, batch in zip(total, batches, strict=True)]
    spent = sum(c * images * count for c, images, count in zip(cost, seen, replicas, strict=True))
    overhang = sum(c * batch * count for c, batch, count in zip(cost, batches, replicas, strict=True))
    budget = amount["tflop"] * 1e12 if in_operations else 1000 * kimg
    assert budget * (1 - 1e-9) <= spent <= (budget + overhang) * (1 + 1e-9)


def test_shares_are_equal_in_the_budgets_own_unit() -> None:
    images = params([2, 2], [1, 4], kimg=100)
    assert [member_kimg(images, name, flops) for name, flops in (("f0", 1e6), ("f1", 9e9))] == [50, 12.5]
    operations = params([2, 2], [1, 1], tflop=100)
    assert [member_kimg(operations, name, flops) for name, flops in (("f0", 1e9), ("f1", 4e9))] == [50, 12.5]
    raced = params([2] * 4, [1] * 4, later=1, kimg=80)
    assert rungs(raced) == 2
    assert member_kimg(raced, "f0", 1) == 10
    assert rung_kimg(raced, "f0", 2, 1, 1) == 20


@pytest.mark.parametrize(
    ("families", "keep", "left"), [(4, 0.5, 2), (5, 0.5, 3), (1, 0.5, 1), (3, 0.1, 1), (10, 0.7, 7), (5, "auto", 3)]
)
def test_at_least_one_family_goes_on(families, keep, left) -> None:
    assert survivors(params([2], [1], keep=keep, kimg=1), families) == left


def test_without_a_budget_a_family_says_itself() -> None:
    made = Params.model_validate(
        {
            "data": {"source": "digits", "watch": "unused", "size": 8},
            "families": {"a": {"architecture": "mlp", "kimg": 7}},
        }
    )
    assert member_kimg(made, "a", 1.0) == 7


def test_a_share_of_less_than_a_batch_is_refused() -> None:
    with pytest.raises(ChorusError, match=r"budget: 0\.1 kimg leave a member of 'f0' 25 images in one of 1 rungs"):
        member_kimg(params([64, 64], [2, 1], kimg=0.1), "f0", 1.0)


def test_half_of_a_members_last_rung_is_divided_among_its_siblings() -> None:
    made = params([64], [1], later=1, kimg=10)
    made = made.model_copy(update={"racing": made.racing.model_copy(update={"branch": 3})})
    assert branched(made, "f0", 6.0) == (3.0, 1.0)
    with pytest.raises(ChorusError, match=r"racing\.branch = 3: a sibling in 'f0' gets 50 images"):
        branched(made, "f0", 0.3)
