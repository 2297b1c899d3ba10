import numpy as np
import pytest

from pipeline.evaluation.frechet import moments
from pipeline.evaluation.ruler import Real
from pipeline.fusion.mixture import MeanDistance
from pipeline.fusion.shrinkage import SHARES, centre, divisions, shrunk
from pipeline.fusion.strategies._base import Candidate, Problem, strategy
from pipeline.params import Fusion

DIMS = 8


def drawn(images, seed, unequal=False):
    """Nine members displaced in directions that cancel (four of them three times as far: unequal); and real images."""
    random = np.random.default_rng(seed)
    apart = random.normal(size=(9, DIMS))
    apart -= apart.mean(axis=0)
    apart[5:] *= 3 if unequal else 1
    pool = []
    for place, shift in enumerate(0.12 * apart):
        samples = random.normal(size=(3000, DIMS)) + shift
        pool.append(Candidate.of(f"m{place}/r0/1", None, lambda samples=samples: (samples / np.sqrt(DIMS),)))
    real = Real((random.normal(size=(images, DIMS)) / np.sqrt(DIMS),))
    return Problem.of(tuple(pool), real, Fusion(), seed)


def true_distance(problem, by_id):
    """From a standard normal distribution in closed form."""
    exact = (moments(np.zeros((2, DIMS)))._replace(covariance=np.eye(DIMS) / DIMS),)
    weights = np.array([by_id.get(candidate.id, 0.0) for candidate in problem.pool])
    return MeanDistance.of([candidate.views for candidate in problem.pool], exact)(weights)[0]


def unshrunk(problem):
    weights = MeanDistance.of([c.views for c in problem.pool], problem.real.views).optimum().weights
    return dict(zip(problem.distances, weights, strict=True))


@pytest.mark.parametrize("name", ["weighted", "weighted_kid"])
def test_with_200_images_shrunk_weights_are_no_worse_than_equal_ones_where_the_optimum_is(name):
    problems = [drawn(200, seed) for seed in range(8)]
    plain = np.mean([true_distance(problem, unshrunk(problem)) for problem in problems])
    equal = np.mean([true_distance(p, strategy("uniform")(p).evidence["weights"]) for p in problems])
    found = [strategy(name)(problem).evidence for problem in problems]
    delivered = np.mean([true_distance(p, own["weights"]) for p, own in zip(problems, found, strict=True)])
    assert plain > 5 * equal
    assert delivered < 1.5 * equal
    told = "optimism" if name == "weighted" else "optimism_kid"
    assert all(own[told] > 0 for own in found)


@pytest.mark.parametrize("name", ["weighted", "weighted_kid"])
def test_with_many_images_weights_that_differ_stay_as_they_are(name):
    problem = drawn(6000, 0, unequal=True)
    evidence = strategy(name)(problem).evidence
    assert evidence["shrinkage"] <= 0.1
    equal = true_distance(problem, strategy("uniform")(problem).evidence["weights"])
    assert true_distance(problem, evidence["weights"]) < 0.5 * equal


@pytest.mark.parametrize("name", ["weighted", "weighted_kid"])
@pytest.mark.parametrize("images", [2, 3, 5])
def test_fewer_images_than_features(name, images):
    """Where nothing can be held out weights are equal; where they are found, they are finite and add up to 1."""
    problem = drawn(images, 0)
    evidence = strategy(name)(problem).evidence
    weights = np.array(list(evidence["weights"].values()))
    assert weights.sum() == pytest.approx(1)
    assert np.isfinite([value for value in evidence.values() if isinstance(value, float)]).all()
    if images < 4:
        assert evidence["shrinkage"] == 1
        assert weights == pytest.approx(np.full(9, 1 / 9))


def test_divisions_come_both_ways_and_differ():
    found = divisions(10, seed=3)
    assert len(found) == 8
    for (inside, outside), (back, forth) in zip(found[::2], found[1::2], strict=True):
        assert set(inside) == set(forth)
        assert set(outside) == set(back)
        assert sorted([*inside, *outside]) == list(range(10))
    assert len({tuple(sorted(inside)) for inside, _ in found}) == 8
    assert divisions(3, seed=3) == []


class Quadratic:
    """|w − target|², a distance whose optimum is known."""

    def __init__(self, *target):
        self.target = np.array(target)

    def __call__(self, weights):
        return self.value(weights), 2 * (weights - self.target)

    def value(self, weights):
        return float((weights - self.target) @ (weights - self.target))


def test_the_centre_takes_each_members_nearest_candidate():
    distance = Quadratic(0.1, 0.6, 0.3)
    assert centre(distance, ["a/r0", "a/r0", "b/r0"]) == pytest.approx([0, 0.5, 0.5])


def test_the_share_is_the_best_on_what_is_held_out_by_hand():
    """Fitted beyond the corner (1, 0), tested on (0.7, 0.3): (1 − λ/2, λ/2) is nearest at λ = 0.6."""
    fit, test = Quadratic(1.2, -0.2), Quadratic(0.7, 0.3)
    found = shrunk(np.array([1.0, 0.0]), fit, [(fit, test)], ["a", "b"], Quadratic.value)
    assert found.share == pytest.approx(0.6)
    assert found.share in SHARES
    assert found.weights == pytest.approx([0.7, 0.3])
    assert found.held_out == pytest.approx(0, abs=1e-5)
    assert found.optimism == pytest.approx(0.18 - 0.08, abs=1e-3)


def test_of_equal_shares_the_smallest_is_taken():
    one = Quadratic(1.0)
    assert shrunk(np.ones(1), one, [(one, one)], ["a"], Quadratic.value).share == 0
