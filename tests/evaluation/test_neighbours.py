"""Precision, recall, density and coverage: worked by hand, by brute force, and against torch-fidelity."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline._torchvision import allow_torchvision
from pipeline.evaluation import neighbours
from pipeline.evaluation.neighbours import covered, equally_many, manifold, radii, some

allow_torchvision()
from torch_fidelity.metric_prc import prc_features_to_metric  # noqa: E402


def line(*places: float) -> torch.Tensor:
    """Points on a line."""
    return torch.tensor(places, dtype=torch.float64)[:, None]


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def by_brute_force(fake: np.ndarray, real: np.ndarray, k: int) -> dict[str, float]:
    """The formulas, one pair of points after another, in float64."""

    def reach(points: np.ndarray, i: int) -> float:
        others = [float(np.linalg.norm(points[i] - point)) for j, point in enumerate(points) if j != i]
        return sorted(others)[k - 1]

    def inside(point: np.ndarray, points: np.ndarray, i: int) -> bool:
        return float(np.linalg.norm(points[i] - point)) <= reach(points, i)

    held = np.array([[inside(point, real, i) for point in fake] for i in range(len(real))])
    recalled = [any(inside(point, fake, i) for i in range(len(fake))) for point in real]
    return {
        "precision": float(held.any(0).mean()),
        "recall": float(np.mean(recalled)),
        "density": float(held.sum() / (k * len(fake))),
        "coverage": float(held.any(1).mean()),
    }


def test_worked_by_hand() -> None:
    # The real balls are [-1, 1], [0, 2] and [1, 5], those of the fakes [2, 3], [2.5, 3.5] and [3, 4].
    real, fake = line(0, 1, 3), line(2.5, 3, 3.5)
    assert radii(real, 1).tolist() == [1, 1, 2]
    assert covered(fake, real, 1).tolist() == [False, False, True]
    found = manifold(fake, real, 1)
    assert (found.precision, found.density) == (1, 1)
    assert found.recall == pytest.approx(1 / 3)


def test_a_missing_cluster_is_not_covered_and_density_ignores_it() -> None:
    left, right = normal(200, 3, 0), normal(200, 3, 1) + 50
    fake = normal(400, 3, 2)
    inside = covered(fake, torch.cat([left, right]), 3)
    assert inside[:200].double().mean() > 0.9
    assert not inside[200:].any()
    # All fakes crowd where half of the real images are.
    assert manifold(fake, torch.cat([left, right]), 3).density == pytest.approx(1, abs=0.15)
    assert manifold(fake, torch.cat([left, right]), 3).recall < 0.55


def test_one_outlier_wins_precision_and_no_density() -> None:
    real = torch.cat([normal(100, 2, 0), torch.full((1, 2), 100.0)])
    fake = torch.rand(100, 2, generator=torch.Generator().manual_seed(1)) * 60 + 20
    found = manifold(fake, real, 3)
    assert found.precision == 1
    assert found.density == pytest.approx(1 / 3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(5, 30), st.integers(5, 30), st.integers(1, 5))
def test_equal_to_brute_force(seed: int, k: int, fakes: int, reals: int, dims: int) -> None:
    fake, real = normal(fakes, dims, seed).double(), 0.7 * normal(reals, dims, seed + 1).double() + 0.3
    found = manifold(fake, real, k)
    ours = {
        "precision": found.precision,
        "recall": found.recall,
        "density": found.density,
        "coverage": float(covered(fake, real, k).double().mean()),
    }
    assert ours == pytest.approx(by_brute_force(fake.numpy(), real.numpy(), k))


@pytest.mark.parametrize("dims", [2, 40])
def test_precision_and_recall_are_torch_fidelitys(dims: int) -> None:
    fake, real = normal(700, dims, 0), 1.2 * normal(600, dims, 1)
    theirs = prc_features_to_metric(
        fake, real, prc_neighborhood=3, prc_batch_size=100, save_cpu_ram=True, verbose=False
    )
    found = manifold(fake, real, 3)
    assert found.precision == pytest.approx(theirs["precision"], rel=1e-6)
    assert found.recall == pytest.approx(theirs["recall"], rel=1e-6)


def test_the_size_of_the_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, real = normal(150, 4, 0), normal(130, 4, 1)
    whole = manifold(fake, real, 3), covered(fake, real, 3).tolist()
    monkeypatch.setattr(neighbours, "ROWS_AT_ONCE", 7)
    assert (manifold(fake, real, 3), covered(fake, real, 3).tolist()) == whole


@pytest.mark.parametrize("k", [1, 3, 5])
def test_expected_values_of_one_distribution(k: int) -> None:
    fake, real = normal(3000, 5, 0), normal(3000, 5, 1)
    assert float(covered(fake, real, k).double().mean()) == pytest.approx(1 - 2**-k, abs=0.03)
    assert manifold(fake, real, k).density == pytest.approx(1, abs=0.06)


def test_copies_of_one_point_lie_in_each_others_balls() -> None:
    same = torch.ones(20, 3)
    assert manifold(same, same, 3).precision == manifold(same, same, 3).recall == 1
    assert covered(same, same, 3).all()


def test_rows_are_drawn_at_random_and_equally_many() -> None:
    assert some(5, 5, 0).tolist() == [0, 1, 2, 3, 4]
    drawn = some(1000, 300, 0)
    assert len(drawn.unique()) == 300
    assert drawn.max() > 900
    assert torch.equal(drawn, some(1000, 300, 0))
    assert not torch.equal(drawn, some(1000, 300, 1))
    fakes, reals = equally_many(2000, 270, 10_000, 0)
    assert (len(fakes), len(reals)) == (270, 270)
    assert [len(rows) for rows in equally_many(2000, 3000, 100, 0)] == [100, 100]
