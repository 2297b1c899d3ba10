import numpy as np
import pytest

from pipeline.evaluation import frechet
from pipeline.evaluation.extrapolation import PARTS, at_infinity, enough
from pipeline.evaluation.frechet import Moments

DIMS = 8
REAL = Moments(np.zeros(DIMS), np.eye(DIMS))
# |0.1|² a dimension and (1.1 - 1)² a dimension.
TRUTH = DIMS * (0.01 + 0.01)


def drawn(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, DIMS)) * 1.1 + 0.1


def test_what_few_images_add_is_extrapolated_away() -> None:
    measured, infinite = [], []
    for seed in range(40):
        x = drawn(500, seed)
        measured.append(frechet.distance(frechet.moments(x), REAL))
        infinite.append(at_infinity(x, REAL, seed))
    error = np.std(infinite) / np.sqrt(len(infinite))
    assert np.mean(measured) - TRUTH > 10 * error
    assert np.mean(infinite) == pytest.approx(TRUTH, abs=4 * error)
    # It does not trade the bias for noise.
    assert np.std(infinite) < 1.5 * np.std(measured)


def test_generators_are_ranked_alike_from_few_images_and_from_many() -> None:
    # Of two that are equally far away, the one of more variance has the larger bias.
    wide = np.random.default_rng(0).normal(size=(400, DIMS)) * (1 + np.sqrt(0.02))
    near = np.random.default_rng(1).normal(size=(400, DIMS)) * (1 - np.sqrt(0.02))
    found = [at_infinity(x, REAL) for x in (wide, near)]
    measured = [frechet.distance(frechet.moments(x), REAL) for x in (wide, near)]
    assert abs(found[0] - found[1]) < abs(measured[0] - measured[1])


def test_the_same_seed_divides_alike() -> None:
    x = drawn(202, 3)
    assert at_infinity(x, REAL, 1) == at_infinity(x, REAL, 1) != at_infinity(x, REAL, 2)


def test_parts_must_hold_enough_images() -> None:
    assert enough(20 * DIMS, DIMS)
    assert not enough(20 * DIMS - 1, DIMS)
    assert PARTS * 5 == 20
