"""The strategy `moe` on candidates of known qualities."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.evaluation.ruler import Real, Ruler
from pipeline.fusion.clusters import Head
from pipeline.fusion.moe import MoeSampler
from pipeline.fusion.samplers import CandidateSampler
from pipeline.fusion.strategies._base import Candidate, NotApplicableError, Problem, strategy
from pipeline.fusion.strategies.moe import fit, group
from pipeline.params import Fusion
from tests.fusion.test_experts import images
from tests.fusion.test_samplers import Linear


def candidate(name, shifts, seed, n=1500):
    drawn = images(np.random.default_rng(seed), n, shifts)
    return Candidate(name, drawn.views, None, lambda: drawn.features, 3, drawn.group)


def problem(*pool, n=1500):
    real = images(np.random.default_rng(99), n)
    return Problem.of(pool, Real(real.features, real.group), Fusion())


def halves():
    """Two members, each good at a half of the classes, and one that is mediocre at all."""
    return problem(
        candidate("a/r0/1", (0, 3.0, 3.0), 1),
        candidate("b/r0/1", (3.0, 0, 0), 2),
        candidate("c/r0/1", (1.0, 1.0, 1.0), 3),
    )


def test_it_beats_the_best_mixture_of_all_classes_and_says_how():
    given = halves()
    fusion, weighted = strategy("moe")(given), strategy("weighted")(given)
    evidence = fusion.evidence
    assert evidence["fit"] < 0.5 * weighted.evidence["fit"]
    assert evidence["kkt_residual"] < 1e-6
    assert evidence["shrinkage"] < 1
    assert evidence["held_out"]["without groups"] > evidence["held_out"][f"{evidence['shrinkage']:g}"]
    recipe = fusion.recipe
    assert recipe["kind"] == "moe"
    assert np.sum(recipe["table"], axis=1) == pytest.approx([1, 1, 1])
    assert recipe["shares"] == pytest.approx([0.4, 0.35, 0.25], abs=0.04)
    assert recipe["weights"] == pytest.approx(np.array(recipe["shares"]) @ recipe["table"])
    assert sum(evidence["weights"].values()) == pytest.approx(1)


def test_where_one_member_is_the_best_at_every_class_nothing_changes():
    given = problem(candidate("a/r0/1", (0.0,) * 3, 1), candidate("b/r0/1", (1.0,) * 3, 2))
    fusion, weighted = strategy("moe")(given), strategy("weighted")(given)
    assert fusion.evidence["shrinkage"] == 1
    assert fusion.recipe["kind"] == "mixture"
    assert fusion.evidence["weights"] == pytest.approx(weighted.evidence["weights"], abs=2e-3)


def test_a_class_without_real_images_in_val_can_still_be_asked_for():
    given = halves()
    keep = given.real.labels != 2
    fusion = strategy("moe")(replace(given, real=given.real.take(np.flatnonzero(keep))))
    assert fusion.recipe["shares"][2] == 0
    assert sum(fusion.recipe["table"][2]) == pytest.approx(1)


class Steady(CandidateSampler):
    """A part of one pass an image, of which nothing is drawn here."""

    def __init__(self):
        super().__init__(Linear(0.0))


RULERS = [Ruler("classifier", None, "fd_classifier", 1.0), Ruler("selfsup", None, "fd_selfsup", 1.0)]


def unasked(given, labels=True):
    """The same members where none of them can be asked for a class, with rulers that can be packed."""
    pool = tuple(replace(c, classes=0, asked=None) for c in given.pool)
    real = given.real if labels else Real(given.real.features)
    return replace(given, pool=pool, real=real, rulers=tuple(RULERS))


@pytest.mark.parametrize("labels", [True, False])
def test_members_that_cannot_be_asked_are_looked_through(labels):
    given = unasked(halves(), labels)
    fusion = strategy("moe")(given)
    assert fusion.evidence["fit"] < 0.6 * strategy("weighted")(given).evidence["fit"]
    recipe = fusion.recipe
    assert recipe["kind"] == "moe"
    assert recipe["by_class"] is labels
    assert recipe["companions"] == {"router": "extractors/classifier"}
    head = Head(np.array(recipe["head"]["weights"]), np.array(recipe["head"]["biases"]))
    used = [part["id"] for part in recipe["parts"]]
    for m, name in enumerate(used):
        (expert,) = (c for c in given.pool if c.id == name)
        groups = head.groups(expert.read()[0])
        shares = np.bincount(groups, minlength=len(recipe["shares"])) / len(groups)
        assert np.array(recipe["found"])[:, m] == pytest.approx(shares)
    if labels:
        assert head.groups(given.real.features[0]) == pytest.approx(given.real.labels, abs=2)
        assert (head.groups(given.real.features[0]) == given.real.labels).mean() > 0.95


def test_who_can_be_asked_needs_no_router():
    given = halves()
    mixed = replace(unasked(given), pool=(*given.pool[:2], replace(given.pool[2], classes=0, asked=None)))
    recipe = strategy("moe")(mixed).recipe
    found = np.array(recipe.get("found", np.zeros((3, len(recipe["parts"])))))
    for m, part in enumerate(recipe["parts"]):
        assert found[:, m].any() == (part["id"] == "c/r0/1")


def test_who_draws_other_classes_than_it_is_asked_for_is_looked_through_instead():
    given = replace(halves(), rulers=tuple(RULERS))
    deaf = tuple(replace(c, asked=np.random.default_rng(5).permutation(c.asked)) for c in given.pool)
    heard, unheard = strategy("moe")(given), strategy("moe")(replace(given, pool=deaf))
    assert heard.evidence["asked"] > 0
    assert unheard.evidence["asked"] == 0
    assert unheard.evidence["fit"] < 0.6 * strategy("weighted")(given).evidence["fit"]
    assert np.array(unheard.recipe["found"]).any(axis=0).all()


def test_no_more_images_are_thrown_away_than_is_allowed():
    given = unasked(halves())
    free = strategy("moe")(given).evidence
    dear = strategy("moe")(replace(given, settings=Fusion(min_acceptance=0.7))).evidence
    assert free["acceptance"] >= 0.25
    assert free["acceptance"] < 0.7
    assert free["blend"] == 0
    assert dear["acceptance"] == pytest.approx(0.7, abs=1e-4)
    assert 0 < dear["blend"] < 1
    weighted = strategy("weighted")(given).evidence["fit"]
    assert free["fit"] < dear["fit"] <= (1 - dear["blend"]) * free["fit"] + dear["blend"] * weighted + 1e-3
    nothing = strategy("moe")(replace(given, settings=Fusion(min_acceptance=1.0)))
    assert nothing.recipe["kind"] == "mixture"
    # Whoever can be asked throws nothing away.
    assert strategy("moe")(replace(halves(), settings=Fusion(min_acceptance=1.0))).evidence[
        "acceptance"
    ] == pytest.approx(1)


def test_the_acceptance_is_that_of_the_sampler():
    given = unasked(halves())
    fusion = strategy("moe")(given)
    parts = [Steady() for _ in fusion.recipe["parts"]]
    numbers = {key: fusion.recipe[key] for key in ("shares", "table", "found", "by_class")}
    sampler = MoeSampler(parts, **numbers)
    assert sampler.cost == pytest.approx(1 / fusion.evidence["acceptance"])


def test_a_class_that_is_too_rare_among_a_members_images_is_not_looked_for():
    given = unasked(halves())
    grouping = group(given)
    drawn = images(np.random.default_rng(7), 5000)
    third = np.flatnonzero(grouping.head.groups(drawn.features[0]) == 2)
    # 30 of its images are left: more than say nothing, but less than 1 % of all.
    rare = drawn.take(~np.isin(np.arange(5000), third[30:]))
    assert len(rare.group) > 3000
    alone = Candidate("a/r0/1", rare.views, None, lambda: rare.features)
    fitted = fit(given, grouping, [alone])
    assert fitted.gate.shares[2] == 0
    assert not fitted.gate.table[2].any()
    beside = fit(given, grouping, [alone, given.pool[1]])
    assert beside.gate.table[2] == pytest.approx([0, 1])


def test_as_many_clusters_as_are_wanted_and_the_images_allow():
    given = unasked(halves(), labels=False)
    assert strategy("moe")(given).evidence["groups"] == 10
    few = replace(given, settings=Fusion(moe_clusters=2))
    assert strategy("moe")(few).evidence["groups"] == 2
    small = replace(given, real=given.real.take(np.arange(130)))
    assert strategy("moe")(small).evidence["groups"] == 3


def test_one_cluster_is_the_mixture_that_weighted_finds():
    given = replace(unasked(halves(), labels=False), settings=Fusion(moe_clusters=1))
    fusion, weighted = strategy("moe")(given), strategy("weighted")(given)
    assert fusion.recipe["kind"] == "mixture"
    assert fusion.evidence["weights"] == pytest.approx(weighted.evidence["weights"], abs=1e-4)
    assert fusion.evidence["fit"] == pytest.approx(weighted.evidence["fit"], abs=1e-6)


def test_it_says_why_it_cannot():
    given = halves()
    with pytest.raises(NotApplicableError, match="no member can be asked for a class, and no extractor"):
        strategy("moe")(replace(given, real=Real(given.real.features)))
    with pytest.raises(NotApplicableError, match="no member can be asked for a class, and no extractor"):
        strategy("moe")(replace(given, pool=tuple(replace(c, classes=0, asked=None) for c in given.pool)))
    few = problem(candidate("a/r0/1", (0.0, 0.0, 0.0), 1, n=30), candidate("b/r0/1", (0.0, 0.0, 0.0), 2, n=30))
    with pytest.raises(NotApplicableError, match="too few images"):
        strategy("moe")(few)
