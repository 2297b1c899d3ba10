from dataclasses import replace

import numpy as np
import pytest
import torch

import pipeline.fusion.strategies
from pipeline.evaluation.ruler import Real, Ruler
from pipeline.fusion.diversity import diversity
from pipeline.fusion.kinds import Loader, build_sampler
from pipeline.fusion.needs import networks_of
from pipeline.fusion.samplers import draw
from pipeline.fusion.strategies import weighted
from pipeline.fusion.strategies._base import Candidate, NotApplicableError, Problem, strategy
from pipeline.layers.combiner import Combiner
from pipeline.params import Fusion, registered
from pipeline.recipes import CANDIDATE_ID
from tests.fusion.factories import CONFIG, averages, material

ALL = registered(pipeline.fusion.strategies)
# These train, so they need a budget; for more than one member alone.
TRAINED = ("stacking", "blending")
# Of extractors that put out what they see, the second one more than its ruler looks at.
RULERS = (
    Ruler("classifier", None, "fd_classifier", 1.0),
    Ruler("selfsup", 1, "fd1_selfsup", 100.0, np.zeros(2), np.eye(2)[:, :1]),
)
SETTINGS = Fusion(stacking_kimg=0.2)


def seen(samples):
    """As one extractor sees them whole, and another in their first dimension alone, on another scale. Two classes."""
    return Real((samples, samples[:, :1] / 10), (samples[:, 1] > 0).astype(np.int64))


def candidate(name, samples, critics):
    drawn = seen(samples)
    return Candidate(name, drawn.views, name if critics else None, lambda: drawn.features, 2, drawn.labels)


def problem(critics=True):
    """Members a and b (two snapshots each) miss the real images on opposite sides; c is far away."""
    rng = np.random.default_rng(0)
    shifts = {"a/r0/1": -3.0, "a/r0/2": -1.0, "b/r0/1": 1.1, "b/r0/2": 4.0, "c/r0/1": 30.0}
    pool = tuple(candidate(name, rng.normal(loc=(shift, 0), size=(2000, 2)), critics) for name, shift in shifts.items())
    real = seen(rng.normal(size=(2000, 2)) * [1.5, 1])
    return Problem.of(pool, real, SETTINGS, material=material(profiles=averages), rulers=RULERS)


def candidates_of(recipe):
    return {name for name in networks_of(recipe) if CANDIDATE_ID.fullmatch(name)}


RATIOS = ("ratio", "latent_ratio")


# Here the mixture is as near as the noise lets anything come, which ratios say: they have tests of their own.
@pytest.mark.parametrize("name", [name for name in ALL if name not in RATIOS])
def test_every_strategy_uses_known_candidates_and_weights_that_sum_to_one(name):
    given = problem()
    fusion = strategy(name)(given)
    made = {*fusion.companions, *fusion.snapshots}
    assert candidates_of(fusion.recipe) - made <= {candidate.id for candidate in given.pool}
    assert sum(fusion.evidence["weights"].values()) == pytest.approx(1)
    assert all(weight > 0 for weight in fusion.evidence["weights"].values())


# The ratios' own tests have a pool of one, too.
@pytest.mark.parametrize("name", [name for name in ALL if name not in (*TRAINED, *RATIOS)])
def test_every_strategy_works_on_a_pool_of_one(name):
    one = Problem.of(problem().pool[:1], problem().real, SETTINGS, material=material(profiles=averages), rulers=RULERS)
    fusion = strategy(name)(one)
    sources = {made.source for made in fusion.snapshots.values()}
    assert (candidates_of(fusion.recipe) - set(fusion.snapshots)) | sources == {"a/r0/1"}


def test_the_default_is_every_registered_strategy():
    assert set(Fusion().strategies) == set(ALL)


def test_best_is_the_nearest():
    assert strategy("best")(problem()).recipe == {"kind": "candidate", "id": "a/r0/2"}


def test_uniform_takes_the_nearest_snapshot_of_each_member():
    assert strategy("uniform")(problem()).evidence["weights"] == pytest.approx(
        {"a/r0/2": 1 / 3, "b/r0/1": 1 / 3, "c/r0/1": 1 / 3}
    )


def test_weighted_beats_best_and_uniform_and_drops_the_far_member():
    given = problem()
    evidence = strategy("weighted")(given).evidence
    assert "c/r0/1" not in evidence["weights"]
    assert evidence["kkt_residual"] < 1e-5
    assert evidence["fit"] < strategy("best")(given).evidence["fit"] == min(given.distances.values())
    assert evidence["fit"] < strategy("uniform")(given).evidence["fit"]
    # Pruning costs no more than the gap of what is delivered says; the optimum itself is exact to its own gap.
    loss = evidence["fit"] - evidence["fit_optimum"]
    assert -evidence["kkt_residual"] <= loss <= evidence["kkt_residual_delivered"] < 0.05


def test_what_strategies_share_is_fitted_once_for_a_problem_and_anew_for_another(monkeypatch):
    given, fits = problem(), []
    plain = weighted.fitted
    monkeypatch.setattr(weighted, "fitted", lambda problem: fits.append(problem) or plain(problem))
    refined = strategy("refine")(given)
    assert strategy("weighted")(given) is strategy("weighted")(given)
    assert refined.recipe["weights"] == strategy("weighted")(given).recipe["weights"]
    assert len(fits) == 1
    other = replace(given, seed=5)
    assert strategy("weighted")(other).evidence == plain(other).evidence
    assert len(fits) == 2


def test_greedy_comes_close_to_the_optimum_from_above():
    given = problem()
    evidence = strategy("greedy")(given).evidence
    optimum = strategy("weighted")(given).evidence["fit_optimum"]
    # Fifty additions: weights are multiples of a fiftieth at best.
    assert optimum - 1e-5 <= evidence["fit"] < optimum + 0.02**2
    shares = {name: evidence["picks"].count(name) / len(evidence["picks"]) for name in evidence["weights"]}
    assert evidence["weights"] == pytest.approx(shares)


def test_weighted_kid_is_nearer_by_its_own_measure_than_best_and_uniform():
    given = problem()
    mixtures = {name: strategy(name)(given) for name in ("weighted_kid", "uniform", "best")}
    weights = {name: made.evidence["weights"] for name, made in mixtures.items()}
    told = diversity(replace(given, held_out=given.real), [], weights)
    kid, uniform, best = (row["kid"] for row in told["mixtures"])
    evidence = mixtures["weighted_kid"].evidence
    assert evidence["fit_kid"] == pytest.approx(kid)
    assert kid < min(uniform, best)
    assert "c/r0/1" not in evidence["weights"]
    assert evidence["kkt_residual"] < 1e-5
    assert evidence["kernel_rows"] == 2000


def test_nearer_members_count_more_in_the_weighted_average():
    weights = strategy("average_weighted")(problem()).evidence["weights"]
    assert weights["a/r0/2"] > weights["b/r0/1"] > weights["c/r0/1"]


def test_members_of_one_discriminator_have_one_vote():
    given = problem()
    shared = [replace(c, critic="shared") if c.member != "c/r0" else c for c in given.pool]
    recipe = strategy("vote")(replace(given, pool=tuple(shared))).recipe
    assert recipe["critics"] == ["a/r0/2", "c/r0/1"]


@pytest.mark.parametrize("name", ["vote", "refine"])
def test_strategies_of_discriminators_say_why_they_cannot(name):
    with pytest.raises(NotApplicableError, match="no member has a discriminator"):
        strategy(name)(problem(critics=False))


def test_refine_leaves_out_discriminators_that_put_out_no_numbers():
    given = problem()

    def broken(name):
        network = given.material.discriminator(name)
        if name == "b/r0/1" or everyone:
            for weight in network.parameters():
                weight.fill_(float("nan"))
        return network

    everyone = False
    material = replace(given.material, discriminator=broken)
    recipe = strategy("refine")(replace(given, material=material)).recipe
    assert recipe["critics"] == ["a/r0/2", "c/r0/1"]
    assert len(recipe["readings"]) == 2
    everyone = True
    with pytest.raises(NotApplicableError, match="no discriminator puts out numbers"):
        strategy("refine")(replace(given, material=material))


@pytest.mark.parametrize("name", TRAINED)
def test_a_combiner_needs_a_budget_images_and_something_to_combine(name):
    given = problem()
    one = Problem.of(given.pool[:2], given.real, SETTINGS, material=given.material)  # two snapshots of one member
    with pytest.raises(NotApplicableError, match="nothing to combine"):
        strategy(name)(one)
    with pytest.raises(NotApplicableError, match=r"stacking_kimg is 0"):
        strategy(name)(replace(given, settings=Fusion(stacking_kimg=0)))
    with pytest.raises(NotApplicableError, match="no images and networks"):
        strategy(name)(replace(given, material=None))


@pytest.mark.parametrize("name", TRAINED)
def test_a_combiner_trains_to_the_same_bits_again_on_its_own_images(name):
    first, second = (strategy(name)(problem()) for _ in range(2))
    assert first.recipe == second.recipe
    assert [part["id"] for part in first.recipe["parts"]] == ["a/r0/2", "b/r0/1", "c/r0/1"]  # the nearest leads
    assert first.evidence["real_images"] == {"stacking": 96, "blending": 40}[name]
    (mine,), (again,) = first.companions.values(), second.companions.values()
    for tensor, same in zip(mine.network.state_dict().values(), again.network.state_dict().values(), strict=True):
        assert torch.equal(tensor, same)
    untrained = Combiner(1, 3, 32).state_dict()
    assert not torch.equal(mine.network.state_dict()["up.weight"], untrained["up.weight"])


def test_a_combiner_of_conditional_members_trains_by_class_and_can_be_asked_for_them():
    config = replace(CONFIG, class_shares=(1 / 3, 1 / 3, 1 / 3))
    given = replace(problem(), material=material(config))
    fusion = strategy("stacking")(given)
    (combiner,) = fusion.companions.values()
    load = Loader(given.material.generator, given.material.discriminator, lambda name: combiner.network)
    sampler = build_sampler(fusion.recipe, load)
    assert sampler.classes == 3
    labels = torch.arange(300) % 3
    images = draw(sampler, 300, seed=0, labels=labels)
    assert torch.equal(draw(sampler, 20, seed=0, labels=labels[:20]), images[:20])
    assert not torch.equal(draw(sampler, 300, seed=0, labels=(labels + 1) % 3), images)
