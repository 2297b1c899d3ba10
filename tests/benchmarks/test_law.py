"""The law of ensembles: formulas worked by hand, and against draws from what they assume."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from law import divergence_at, found_by, groups, imbalance, of_size, overtaking

from pipeline.fusion.kernel import MeanKernel
from pipeline.fusion.kernel_distance import KernelDistance


def test_of_size_by_hand() -> None:
    assert of_size(1, 6.0, 4.0) == 6.0
    assert of_size(2, 6.0, 4.0) == 5.0
    assert of_size(4, 6.0, 4.0) == 4.5
    assert of_size(16, 6.0, 4.0) == 6.0 - 15 / 32 * 4.0


def test_of_size_is_the_mean_over_all_pairs_of_what_mixtures_measure() -> None:
    """With M and D of all members the law is no prediction: it is an identity."""
    random = np.random.default_rng(0)
    parts = [(random.normal(size=(40, 3)) + random.normal(size=3),) for _ in range(5)]
    distance = KernelDistance.of(MeanKernel.of([*parts, (random.normal(size=(60, 3)),)]), 5, [5])
    between = distance.between()
    apart = between[np.triu_indices(5, 1)].mean()
    for size in (1, 2, 3, 5):
        mixtures = [np.isin(np.arange(5), rows) / size for rows in groups(5, size, 100, 0)]
        measured = np.mean([distance.unbiased(weights) for weights in mixtures])
        assert of_size(size, distance.of_each().mean(), apart) == pytest.approx(measured, rel=1e-9)


def test_overtaking_by_hand() -> None:
    budgets = [1.0, 4.0, 16.0]
    assert overtaking(budgets, [4, 2, 2], [5, 3, 1]) == pytest.approx(8.0)  # half-way between 4 and 16, in logarithms
    assert overtaking(budgets, [4, 2, 2], [3, 1, 1]) == 1.0
    assert overtaking(budgets, [4, 2, 2], [5, 3, 2]) is None
    # An early lead that is lost again counts for nothing.
    assert overtaking(budgets, [4, 2, 2], [3, 3, 1]) == pytest.approx(8.0)
    assert overtaking([1.0], [2], [1]) == 1.0


def test_found_by_at_its_limits() -> None:
    assert found_by(1, 0.6, 0.5) == pytest.approx(0.6)
    assert found_by(2, 0.6, 0.5) == pytest.approx(0.7)  # one + one − both
    assert found_by(4, 0.6, 0.6) == pytest.approx(0.6)  # the same modes for all
    assert found_by(4, 0.5, 0.25) == pytest.approx(1 - 0.5**4)  # no mode is easier than another
    assert found_by(4, 0.5, 0.2) == pytest.approx(1 - 0.5**4)
    assert found_by(8, 1.0, 1.0) == 1.0
    assert found_by(8, 0.0, 0.0) == 0.0


def test_found_by_of_a_uniform_probability() -> None:
    """Of π uniform on [0, 1], E π = 1/2, E π² = 1/3 and E (1−π)^K = 1/(K+1)."""
    for size in (1, 2, 4, 16):
        assert found_by(size, 1 / 2, 1 / 3) == pytest.approx(size / (size + 1))


@given(st.floats(0, 1), st.floats(0, 1))
def test_more_members_find_no_less(one: float, alike: float) -> None:
    both = one**2 + alike * (one - one**2)
    found = [found_by(size, one, both) for size in (1, 2, 4, 8, 16)]
    assert found == sorted(found) or np.allclose(np.diff(found)[np.diff(found) < 0], 0, atol=1e-9)
    assert 0 <= found[0] <= found[-1] <= 1 + 1e-12


def test_imbalance_by_hand() -> None:
    assert imbalance(np.array([2, 2, 0, 0])) == pytest.approx(4 * 4 / 12 - 1)
    assert imbalance(np.array([2, 0]), np.array([1, 3])) == pytest.approx(2 * 2 / 8 - 1)
    assert imbalance(np.array([5, 0]), np.array([0, 5])) == -1


def test_imbalance_is_unbiased() -> None:
    random, shares = np.random.default_rng(0), np.array([0.4, 0.3, 0.2, 0.1])
    drawn = random.multinomial(20, shares, size=(2, 5_000))
    alone = [imbalance(counts) for counts in drawn[0]]
    across = [imbalance(one, other) for one, other in zip(*drawn, strict=True)]
    for values in (alone, across):
        assert np.mean(values) == pytest.approx(4 * np.sum(shares**2) - 1, abs=4 * np.std(values) / 5_000**0.5)


def test_divergence_of_frequencies_that_follow_the_gamma_distribution() -> None:
    random, modes, images = np.random.default_rng(0), 1000, 26_000
    for variance in (0.0, 0.1, 1.0):
        found, true = [], []
        for _ in range(20):
            shares = random.gamma(1 / variance, variance, modes) if variance else np.ones(modes)
            shares /= shares.sum()
            seen = random.multinomial(images, shares) / images
            true.append(modes * np.sum(shares**2) - 1)
            found.append(np.sum(seen[seen > 0] * np.log(modes * seen[seen > 0])))
        assert divergence_at(float(np.mean(true)), modes, images) == pytest.approx(np.mean(found), rel=0.02)


def test_groups_are_all_there_are_or_as_many_as_asked_for() -> None:
    assert groups(4, 2, 10, 0) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    drawn = groups(16, 8, 20, 1)
    assert len(set(drawn)) == 20
    assert all(len(set(rows)) == 8 and set(rows) <= set(range(16)) for rows in drawn)
    assert drawn == groups(16, 8, 20, 1)
