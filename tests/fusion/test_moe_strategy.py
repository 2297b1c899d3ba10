"""The strategy `moe` on candidates of known qualities."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.evaluation.ruler import Real
from pipeline.fusion.strategies._base import Candidate, NotApplicableError, Problem, strategy
from pipeline.params import Fusion
from tests.fusion.test_experts import images


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


def test_it_says_why_it_cannot():
    given = halves()
    with pytest.raises(NotApplicableError, match="no member can be asked for a class"):
        strategy("moe")(replace(given, real=Real(given.real.features)))
    with pytest.raises(NotApplicableError, match="no member can be asked for a class"):
        strategy("moe")(replace(given, pool=tuple(replace(c, classes=0, asked=None) for c in given.pool)))
    few = problem(candidate("a/r0/1", (0.0, 0.0, 0.0), 1, n=30), candidate("b/r0/1", (0.0, 0.0, 0.0), 2, n=30))
    with pytest.raises(NotApplicableError, match="too few images"):
        strategy("moe")(few)
