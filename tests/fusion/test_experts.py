"""Weights for each group: the closed form, its optimum, and how far cross-fitting shrinks it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation import frechet
from pipeline.fusion.experts import ExpertDistance, Grouped, _spread, fit_gate
from pipeline.fusion.mixture import MeanDistance

CENTRES = np.array([[-3.0, 0.0], [3.0, 0.0], [0.0, 4.0]])


def images(rng, n, shifts=(0.0, 0.0, 0.0), shares=(0.4, 0.35, 0.25)):
    """Images of three classes as two rulers see them; `shifts`: by how much each class is off."""
    group = rng.choice(3, size=n, p=shares)
    values = CENTRES[group] + np.array(shifts)[group, None] + rng.normal(size=(n, 2))
    return Grouped((values, values[:, :1] / 3), group)


def setting(seed, n=1200):
    """Real images, and three members: good at one class, at the two others, and mediocre at all."""
    rng = np.random.default_rng(seed)
    members = [images(rng, n, shifts) for shifts in ((0, 3.0, 3.0), (3.0, 0, 0), (1.0, 1.0, 1.0))]
    return images(rng, n), members


EVERYONE = np.ones((3, 3), dtype=bool)


def shares_of(real):
    return real.counts(3) / len(real.group)


def random_table(rng, groups=3, members=3):
    return rng.dirichlet(np.ones(members), size=groups)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_the_value_is_the_distance_of_pooled_images(seed):
    rng = np.random.default_rng(seed)
    real = images(rng, 400)
    # Of each cell as many images as its weight says; a plain covariance makes the identity exact.
    counts = np.array([[30, 60, 10], [0, 50, 50], [25, 25, 50]])
    cells = [[images(rng, 200, shares=np.eye(3)[k]).features[0][: counts[k, m]] for m in range(3)] for k in range(3)]
    pooled = np.concatenate([part for row in cells for part in row])
    members = [
        Grouped((np.concatenate([cells[k][m] for k in range(3)]),), np.repeat(np.arange(3), counts[:, m]))
        for m in range(3)
    ]
    shares = counts.sum(axis=1) / counts.sum()
    problem = ExpertDistance.of(Grouped(real.features[:1], real.group), members, counts > 0, shares)
    value, _ = problem(counts / counts.sum(axis=1, keepdims=True))
    expected = frechet.distance(frechet.moments(pooled), frechet.moments(real.features[0]))
    # Unbiased covariances of the cells: the identity holds up to 1/n.
    assert value == pytest.approx(expected, rel=0.05, abs=0.02)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_the_gradient_equals_finite_differences_and_the_value_is_convex(seed):
    rng = np.random.default_rng(seed)
    real, members = setting(seed, 400)
    problem = ExpertDistance.of(real, members, EVERYONE, shares_of(real))
    table, other = random_table(rng), random_table(rng)
    (value, gradient), (far, _) = problem(table), problem(other)
    step = 1e-5 * (other - table)
    slope = (problem(table + step)[0] - problem(table - step)[0]) / 2e-5
    assert (gradient * (other - table)).sum() == pytest.approx(slope, rel=1e-4, abs=1e-6)
    assert problem((table + other) / 2)[0] <= (value + far) / 2 + 1e-12


def test_the_optimum_is_certified_and_no_other_table_is_better():
    real, members = setting(0)
    problem = ExpertDistance.of(real, members, EVERYONE, shares_of(real))
    table, optimum = problem.optimum()
    assert table.sum(axis=1) == pytest.approx([1, 1, 1])
    assert problem(table)[0] == pytest.approx(optimum.value)
    assert optimum.gap <= 1e-6
    rng = np.random.default_rng(1)
    assert min(problem(random_table(rng))[0] for _ in range(300)) >= optimum.value - optimum.gap


def test_one_group_is_the_plain_mixture():
    real, members = setting(2)
    alone = [Grouped(some.features, np.zeros_like(some.group)) for some in (real, *members)]
    table, optimum = ExpertDistance.of(alone[0], alone[1:], EVERYONE[:1], np.ones(1)).optimum()
    plain = MeanDistance.of([member.views for member in members], real.views).optimum()
    assert table[0] == pytest.approx(plain.weights, abs=1e-6)
    assert optimum.value == pytest.approx(plain.value)


def test_members_that_are_good_at_different_classes_beat_every_mixture_without_classes():
    real, members = setting(3)
    gate = fit_gate(real, members, EVERYONE)
    assert gate is not None
    assert gate.strength is not None
    assert gate.strength < 1
    assert gate.table[0, 0] > 0.8
    assert gate.table[1:, 1] == pytest.approx([1, 1], abs=0.2)
    grid = [np.array([i, j, 20 - i - j]) / 20 for i in range(21) for j in range(21 - i)]
    plain = MeanDistance.of([member.views for member in members], real.views)
    assert gate.fit < 0.5 * min(plain(weights)[0] for weights in grid)
    assert gate.held_out[f"{gate.strength:g}"] < gate.held_out["without groups"]


@pytest.mark.parametrize("seed", range(3))
def test_groups_that_say_nothing_leave_the_weights_as_they_are(seed):
    real, members = setting(seed, 600)
    rng = np.random.default_rng(seed)
    anyhow = [Grouped(some.features, rng.integers(0, 3, len(some.group))) for some in (real, *members)]
    gate = fit_gate(anyhow[0], anyhow[1:], EVERYONE)
    assert gate is not None
    assert gate.strength in (None, 1.0)
    plain = MeanDistance.of([member.views for member in members], real.views).optimum()
    assert gate.table == pytest.approx(np.tile(plain.weights, (3, 1)), abs=2e-3)


def test_an_empty_class_and_one_that_a_member_lacks():
    rng = np.random.default_rng(5)
    real = images(rng, 900, shares=(0.5, 0.5, 0.0))
    members = [images(rng, 900, (0, 3.0, 0), (1.0, 0.0, 0.0)), images(rng, 900, (3.0, 0, 0), (0.5, 0.5, 0.0))]
    gate = fit_gate(real, members, np.array([[True, True], [False, True], [True, False]]))
    assert gate is not None
    assert gate.shares[2] == 0
    assert gate.table[1] == pytest.approx([0, 1])
    assert gate.table[0, 0] > 0.8
    # No image tells what the empty class should get: whoever is able to draw it does.
    assert gate.table[2] == pytest.approx([1, 0])
    assert np.isfinite(gate.fit)


def test_a_class_that_nobody_can_draw_leaves_its_share_to_the_others():
    real, members = setting(6, 600)
    able = EVERYONE & (np.arange(3) != 1)[:, None]
    gate = fit_gate(real, members, able)
    assert gate is not None
    assert gate.shares[1] == 0
    assert gate.shares.sum() == pytest.approx(1)
    assert not gate.table[1].any()


def test_identical_members_share_and_a_single_one_takes_all():
    real, members = setting(7, 600)
    gate = fit_gate(real, [members[2], members[2]], EVERYONE[:, :2])
    assert gate is not None
    assert gate.table == pytest.approx(np.full((3, 2), 0.5), abs=1e-3)
    alone = fit_gate(real, members[:1], EVERYONE[:, :1])
    assert alone is not None
    assert alone.table == pytest.approx(np.ones((3, 1)))


def test_weights_on_what_is_not_measured_go_to_what_is():
    measured = np.array([[True, True, False], [False, True, True]])
    table = np.array([[0.2, 0.6, 0.2], [1.0, 0.0, 0.0]])
    assert _spread(table, measured) == pytest.approx(np.array([[0.25, 0.75, 0], [0, 0.5, 0.5]]))


def test_too_few_images_fit_nothing():
    real, members = setting(8, 30)
    assert fit_gate(real, [member.take(np.arange(30) < 12) for member in members], EVERYONE) is None
