"""Rules over the pool: which candidates they keep, also of pools that are degenerate."""

import numpy as np
import pytest

from pipeline.errors import ChorusError
from pipeline.evaluation.ruler import Real
from pipeline.fusion.folds import folds
from pipeline.fusion.pruning import marginal
from pipeline.fusion.selection import RULES, select
from pipeline.fusion.strategies._base import Candidate, Problem
from pipeline.params import Fusion


def candidate(name, samples):
    return Candidate.of(name, None, lambda: (samples,))


def problem(images=2000, **keys):
    """Members a and b miss the real images on opposite sides; c does so farther out on a's side; d is far away."""
    random = np.random.default_rng(0)
    shifts = {"a/r0/1": -1.0, "b/r0/1": 1.1, "c/r0/1": -1.2, "d/r0/1": 30.0}
    pool = tuple(candidate(name, random.normal((shift, 0), size=(2000, 2))) for name, shift in shifts.items())
    real = Real((random.normal(size=(images, 2)) * [1.5, 1],))
    return Problem.of(pool, real, Fusion(**({"select": keys} if keys else {})))


def kept(given):
    chosen, selection = select(given)
    assert {c.id for c in chosen.pool} == selection.kept
    assert [verdict.id for verdict in selection.verdicts] == [c.id for c in given.pool]
    assert chosen.ranked()[0].id == given.ranked()[0].id
    assert all(verdict.why for verdict in selection.verdicts)
    return "".join(sorted(name[0] for name in selection.kept))


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ({}, "abcd"),
        ({"rule": "all"}, "abcd"),
        ({"rule": "threshold"}, "abc"),
        ({"rule": "threshold", "factor": 1.0}, "a"),
        ({"rule": "top", "count": 2}, "ab"),
        ({"rule": "top", "count": 9}, "abcd"),
        ({"rule": "greedy"}, "ab"),
        ({"rule": "prune"}, "ab"),
    ],
)
def test_rules(keys, names):
    assert kept(problem(**keys)) == names


def test_the_default_keeps_all():
    assert Fusion().select.rule == "all"


def test_pruning_says_gain_and_noise():
    _, selection = select(problem(rule="prune"))
    why = {verdict.id[0]: verdict.why for verdict in selection.verdicts}
    assert why["a"] == "the nearest"
    assert why["b"].startswith("gain 1.2, noise 0.0")
    assert why["d"] == "gain 0, noise 0"


def test_with_few_real_images_pruning_keeps_less():
    names = [kept(problem(images, rule="prune", noise=2.0)) for images in (6, 2000)]
    assert names == ["a", "ab"]


def test_of_identical_candidates_pruning_keeps_one_and_no_rule_breaks():
    given = problem()
    pool = tuple(Candidate(f"a/r{i}/1", given.pool[0].views, None, given.pool[0].read) for i in range(3))
    for rule in RULES:
        same = Problem.of(pool, given.real, Fusion(select={"rule": rule}))
        assert kept(same) == ("a" if rule in ("greedy", "prune") else "aaa")


@pytest.mark.parametrize("rule", RULES)
def test_a_pool_of_one_and_two_real_images(rule):
    given = problem()
    real = given.real.take(np.arange(2))
    settings = Fusion(select={"rule": rule})
    assert kept(Problem.of(given.pool[:1], real, settings)) == "a"
    assert kept(Problem.of(given.pool, real, settings))


def test_features_that_are_not_finite_are_refused_by_name():
    samples = np.zeros((5, 2))
    samples[3, 1] = np.nan
    with pytest.raises(ChorusError, match=r"a/r0/1: features hold NaN or infinite values.*dvc repro"):
        candidate("a/r0/1", samples)


def test_folds_are_disjoint_and_cover_all():
    found = folds(23, 5, seed=1)
    assert sorted(np.concatenate([own for _, own in found])) == list(range(23))
    for rest, own in found:
        assert set(rest).isdisjoint(own)
        assert len(rest) + len(own) == 23
        assert len(own) in (4, 5)
    assert [len(own) for _, own in folds(5, 20, seed=1)] == [3, 2]
    assert folds(3, 5, seed=1) == []


@pytest.mark.parametrize(("images", "samples"), [(300, 3000), (3000, 300)])
def test_noise_of_a_gain_is_that_of_redrawing_real_and_generated_images(images, samples):
    random = np.random.default_rng(0)
    weights, gains = np.full(2, 0.5), []
    for _ in range(100):
        parts = [
            candidate(f"a/r{i}/1", random.normal((shift, 0), size=(samples, 2))) for i, shift in enumerate((-1, 1))
        ]
        real = Real((random.normal(size=(images, 2)) * [1.4, 1],))
        gains.append(marginal(parts, [0, 1], weights, 0, real)[1])
    spread = np.std([gain.size for gain in gains])
    assert np.mean([gain.noise for gain in gains]) == pytest.approx(spread, rel=0.2)
