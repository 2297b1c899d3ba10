"""The gate's rules on numbers whose verdicts can be worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from pipeline.evaluation.intervals import QUANTILE, Estimate
from pipeline.gate.comparison import TOGETHER, compare, without
from pipeline.gate.rules import APART, FAILED, PASSED, Model, Opponent, Rule, passed, verdicts
from pipeline.params import Gate

JUDGES = ("a", "b")
REAL = {f"{kind}_{judge}": 0.8 for kind in ("precision", "recall", "coverage") for judge in JUDGES} | {"authentic": 0.5}
DEFAULT = Gate()
GOOD = Model(None, REAL | {"authentic": 0.6}, 0.2, 3.0)


def opponent(value: float, half: float, before: float = 0.5, *, farther: bool = False) -> Opponent:
    """A champion at `before`, from which the candidate differs by `value`, give or take `half`."""

    def row(metric: str, value: float, beyond: bool) -> dict:
        apart = {"value": value, "low": value - half, "high": value + half, "beyond_noise": beyond}
        return {"metric": metric, "champion": {"value": before}, "difference": apart}

    return Opponent("3", rows=[row(TOGETHER, value, abs(value) > half), row("fd_a", 0.1, farther)])


def rules(settings: Gate = DEFAULT, candidate: Model = GOOD, champion: Opponent | None = None) -> dict[str, Rule]:
    return {rule.name: rule for rule in verdicts(settings, candidate, champion, REAL, JUDGES)}


def test_without_a_champion_nothing_is_compared_and_the_rest_decides() -> None:
    found = rules()
    assert {name for name, rule in found.items() if rule.verdict == APART} == {
        *("improvement", "agreement", "milliseconds", "megabytes")
    }
    assert "no champion yet" in found["improvement"].why
    assert passed(list(found.values()))


@pytest.mark.parametrize(
    ("value", "half", "share", "verdict"),
    [
        (-0.1, 0.05, 0.0, PASSED),  # nearer by 0.05 to 0.15
        (-0.1, 0.05, 0.09, PASSED),  # more than 0.045
        (-0.1, 0.05, 0.11, FAILED),  # not surely more than 0.055
        (-0.1, 0.11, 0.0, FAILED),  # within the noise
        (0.1, 0.05, 0.0, FAILED),  # farther
    ],
)
def test_the_whole_interval_of_the_gain_lies_above_the_wanted_share(
    value: float, half: float, share: float, verdict: str
) -> None:
    found = rules(Gate(improvement=share), champion=opponent(value, half))["improvement"]
    assert found.verdict == verdict
    assert found.value == pytest.approx(-value - half)
    assert found.limit == pytest.approx(share * 0.5)


def test_a_champion_nearer_than_its_bias_asks_for_no_negative_gain() -> None:
    found = rules(Gate(improvement=0.5), champion=opponent(-0.1, 0.05, before=-0.2))["improvement"]
    assert (found.verdict, found.limit) == (PASSED, 0)


def test_one_judge_that_finds_it_farther_is_enough_to_fail() -> None:
    found = rules(champion=opponent(-0.1, 0.05, farther=True))
    assert found["improvement"].verdict == PASSED
    assert (found["agreement"].verdict, found["agreement"].why) == (FAILED, "farther than version 3 by fd_a")
    assert not passed(list(found.values()))
    assert rules(champion=opponent(-0.1, 0.05))["agreement"].verdict == PASSED


@pytest.mark.parametrize(
    ("champion", "words"),
    [
        (Opponent("3", problem="its artefacts are lost"), "version 3, cannot be measured: its artefacts are lost"),
        (Opponent("3"), "too few"),
    ],
)
def test_what_cannot_be_compared_does_not_pass(champion: Opponent, words: str) -> None:
    found = rules(champion=champion)
    assert {found[name].verdict for name in ("improvement", "agreement")} == {FAILED}
    assert words in found["improvement"].why


def test_all_judges_together_are_all_of_them() -> None:
    found = rules(champion=replace(opponent(-0.1, 0.05), without=["fd_b", "fd_c"]))
    assert found["improvement"].verdict == FAILED
    assert found["improvement"].why == "the images are too few for an interval by fd_b and fd_c"
    assert found["agreement"].verdict == PASSED


def test_the_champion_is_not_compared_with_itself() -> None:
    found = rules(champion=Opponent("3", itself=True))
    assert found["improvement"].verdict == APART
    assert passed(list(found.values()))


@pytest.mark.parametrize("name", ["precision", "recall", "coverage", "authentic"])
def test_floors_are_shares_of_what_real_images_reach_by_every_judge(name: str) -> None:
    key, real = (name, 0.5) if name == "authentic" else (f"{name}_b", 0.8)
    for value, verdict in ((real / 2, PASSED), (real / 2 - 0.01, FAILED), (math.nan, FAILED)):
        found = rules(candidate=replace(GOOD, metrics=GOOD.metrics | {key: value}))[name]
        assert found.verdict == verdict
        assert found.limit == real / 2
        assert found.value == value or math.isnan(value)
    assert rules(Gate(**{name: None}))[name].verdict == APART


@pytest.mark.parametrize(("name", "value"), [("milliseconds", 0.2), ("megabytes", 3.0)])
def test_costs_have_limits_where_these_are_set(name: str, value: float) -> None:
    for limit, verdict in ((value, PASSED), (value - 0.1, FAILED)):
        found = rules(Gate(**{f"max_{name}": limit}))[name]
        assert (found.verdict, found.value, found.limit) == (verdict, value, limit)


def test_a_model_that_does_not_work_fails_and_is_measured_by_nothing() -> None:
    found = rules(Gate(max_milliseconds=1.0, max_megabytes=5.0), Model("ImportError: x", {}, None, 3.0))
    assert found["smoke"].verdict == FAILED
    assert "ImportError: x" in found["smoke"].why
    assert set(found) == {"smoke", "milliseconds", "megabytes"}
    assert found["milliseconds"].verdict == APART
    assert not passed(list(found.values()))


def test_comparison_is_of_each_judge_and_of_their_mean_in_relative_units() -> None:
    random = np.random.default_rng(0)

    def side(values: dict[str, float]) -> dict[str, Estimate]:
        return {
            name: Estimate(value + 1, 1.0, random.normal(size=200), random.normal(size=80))
            for name, value in values.items()
        }

    candidate, champion = side({"fd_a": 4.0, "fd_b": 6.0}), side({"fd_a": 5.0, "fd_b": 4.0})
    together, a, b = compare(candidate, champion, {"fd_a": 10.0, "fd_b": 20.0})
    assert [row["metric"] for row in (together, a, b)] == [TOGETHER, "fd_a", "fd_b"]
    # (4/10 + 6/20) / 2 against (5/10 + 4/20) / 2
    assert (together["candidate"]["value"], together["champion"]["value"]) == pytest.approx((0.35, 0.35))
    assert (a["difference"]["value"], b["difference"]["value"]) == pytest.approx((-1.0, 2.0))
    pair = candidate["fd_a"], champion["fd_a"]
    errors = [one.generated.var(ddof=1) / 200 for one in pair]
    errors.append((pair[0].real - pair[1].real).var(ddof=1) / 80)
    assert a["difference"]["high"] == pytest.approx(-1 + QUANTILE * math.sqrt(sum(errors)), rel=0.02)
    spreads = {"fd_a": 10.0, "fd_b": 20.0}
    assert compare(candidate, {}, spreads) == []
    alone = {"fd_a": champion["fd_a"]}
    assert without(candidate, alone, spreads) == without(alone, champion, spreads) == ["fd_b"]
    assert [row["metric"] for row in compare(candidate, alone, spreads)] == ["fd_a"]
