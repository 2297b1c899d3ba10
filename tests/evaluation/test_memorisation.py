"""Memorisation: copies are caught, fresh images are not, and the numbers are those of the formulas."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ChorusError
from pipeline.evaluation import memorisation as module
from pipeline.evaluation.memorisation import coarse, memorisation, nearest

CPU = torch.device("cpu")


def pictures(n: int, seed: int, size: int = 16, channels: int = 1, directions: int = 6) -> torch.Tensor:
    """Smooth random images: few coarse patterns, mixed at random."""
    random = np.random.default_rng(123)
    patterns = torch.from_numpy(random.normal(size=(directions, channels, 4, 4)).astype(np.float32))
    patterns = torch.nn.functional.interpolate(patterns, size=(size, size), mode="bilinear")
    weights = torch.from_numpy(np.random.default_rng(seed).normal(size=(n, directions)).astype(np.float32))
    mixed = torch.einsum("nd,dchw->nchw", weights, patterns)
    return (128 + 25 * mixed).round().clamp(0, 255).to(torch.uint8)


def examine(images: torch.Tensor, train: torch.Tensor, held_out: torch.Tensor) -> module.Memorisation:
    return memorisation(images, train.numpy(), held_out.numpy(), CPU)


def disturbed(images: torch.Tensor, noise: float = 8.0) -> torch.Tensor:
    """The images with noise, less contrast and more light."""
    random = np.random.default_rng(5).normal(0, noise, images.shape)
    return torch.from_numpy((0.8 * images.numpy() + 30 + random).clip(0, 255).astype(np.uint8))


def test_fresh_real_images_are_not_found_to_be_copies() -> None:
    found = examine(pictures(600, 1), pictures(1500, 2), pictures(500, 3))
    # Of points in six dimensions under half are each other's nearest, so over a third are authentic whatever made them.
    assert found.authentic > 0.35
    assert found.in_train.by_chance == 0.75
    assert found.in_train.value == pytest.approx(0.75, abs=3 * found.in_train.deviation)
    assert found.in_train.deviation < 0.03
    assert found.distance_ratio == pytest.approx(1, abs=0.05)
    assert not found.suspicious


def test_copies_are_caught() -> None:
    train = pictures(1500, 2)
    found = examine(train[200:500], train, pictures(500, 3))
    assert found.authentic == 0
    assert found.in_train.value == 1
    assert found.suspicious
    assert found.nearest.tolist() == list(range(200, 500))
    assert (found.relative == 0).all()
    # A copied image lies in one of the three blocks of 500.
    assert found.distance_ratio == pytest.approx(2 / 3, abs=0.05)


def test_noise_and_another_contrast_hide_no_copy() -> None:
    train = pictures(1500, 2, size=32)
    found = examine(disturbed(train[:300]), train, pictures(500, 3, size=32))
    assert (found.nearest == torch.arange(300)).double().mean() > 0.95
    assert found.in_train.value > 0.95
    assert found.authentic < 0.1


def test_a_few_copies_come_first() -> None:
    train = pictures(800, 2)
    images = torch.cat([pictures(95, 1), train[[7, 77, 700]]])
    found = examine(images, train, pictures(200, 3))
    assert set(found.relative.argsort()[:3].tolist()) == {95, 96, 97}
    assert found.nearest[95:].tolist() == [7, 77, 700]


def test_poor_images_are_authentic_and_near_nothing() -> None:
    """Images unlike all real ones: the ratio and the share in train do not mistake them for copies."""
    random = np.random.default_rng(0).integers(0, 256, (400, 1, 16, 16), dtype=np.uint8)
    found = examine(torch.from_numpy(random), pictures(900, 2), pictures(300, 3))
    assert found.authentic == 1
    assert found.in_train.value == pytest.approx(0.75, abs=3 * found.in_train.deviation)
    assert found.distance_ratio == pytest.approx(1, abs=0.02)


def by_brute_force(images: np.ndarray, train: np.ndarray, held_out: np.ndarray) -> tuple[float, float, float]:
    between = [[float(np.linalg.norm(a - b)) for b in train] for a in images]
    to_held = [min(float(np.linalg.norm(a - b)) for b in held_out) for a in images]
    authentic = []
    for distances in between:
        row = int(np.argmin(distances))
        own = min(float(np.linalg.norm(train[row] - b)) for j, b in enumerate(train) if j != row)
        authentic.append(min(distances) > own)
    in_train = [min(distances) < held for distances, held in zip(between, to_held, strict=True)]
    size = min(len(train), len(held_out))
    means = [
        np.mean([[min(np.linalg.norm(a - b) for b in real[i : i + size]) for a in images] for i in starts])
        for real in (train, held_out)
        for starts in [range(0, len(real) - size + 1, size)]
    ]
    return float(np.mean(authentic)), float(np.mean(in_train)), float(means[0] / means[1])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 25), st.integers(1, 12))
def test_equal_to_brute_force(seed: int, n_train: int, n_held: int) -> None:
    made = pictures(9, seed), pictures(n_train, seed + 1), pictures(n_held, seed + 2)
    found = examine(*made)
    points = [coarse(images).double().numpy() for images in made]
    expected = by_brute_force(*points)
    assert (found.authentic, found.in_train.value, found.distance_ratio) == pytest.approx(expected, rel=1e-4)


def test_chance_is_what_other_divisions_of_the_real_images_give() -> None:
    images, real, random = pictures(60, 1), pictures(40, 2).numpy(), np.random.default_rng(0)
    found = []
    for _ in range(400):
        order = random.permutation(40)
        found.append(memorisation(images, real[order[:25]], real[order[25:]], CPU))
    shares = [one.in_train.value for one in found]
    assert {one.in_train.by_chance for one in found} == {25 / 40}
    # Which images are nearest depends on no division, so each gives the same deviation.
    assert found[0].in_train.deviation == pytest.approx(found[1].in_train.deviation)
    assert np.mean(shares) == pytest.approx(25 / 40, abs=4 * found[0].in_train.deviation / 20)
    assert np.std(shares) == pytest.approx(found[0].in_train.deviation, rel=0.12)

    tenths = [one.closest_in_train.value for one in found]
    assert np.mean(tenths) == pytest.approx(25 / 40, abs=4 * found[0].closest_in_train.deviation / 20)
    assert np.std(tenths) == pytest.approx(found[0].closest_in_train.deviation, rel=0.15)


def test_few_copies_show_among_the_closest() -> None:
    train, held_out = pictures(1500, 2), pictures(500, 3)
    images = torch.cat([pictures(920, 1), disturbed(train[:80], noise=2.0)])
    found = examine(images, train, held_out)
    assert not found.in_train.beyond_chance
    assert found.closest_in_train.beyond_chance
    assert found.suspicious
    honest = examine(images[:920], train, held_out)
    assert not honest.suspicious


def test_one_image_over_and_over_is_no_proof_of_copying() -> None:
    images = disturbed(pictures(1, 1)).expand(300, -1, -1, -1)
    for seed in range(10):
        found = examine(images, pictures(300, 20 + seed), pictures(100, 40 + seed))
        assert found.in_train.deviation == pytest.approx(0.433, abs=0.01)
        assert not found.suspicious


def test_the_size_of_the_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = pictures(50, 1), pictures(130, 2), pictures(40, 3)
    whole = examine(*made)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 7)
    parts = examine(*made)
    assert (parts.authentic, parts.in_train) == (whole.authentic, whole.in_train)
    assert parts.distance_ratio == pytest.approx(whole.distance_ratio, rel=1e-5)
    assert torch.equal(parts.nearest, whole.nearest)


def test_training_images_are_read_in_parts() -> None:
    class Watched:
        """Training images of which no more than a thousand are read at once."""

        shape = (2500, 1, 8, 8)

        def __len__(self) -> int:
            return self.shape[0]

        def __getitem__(self, rows: np.ndarray) -> np.ndarray:
            assert len(rows) <= module.ROWS_AT_ONCE
            return pictures(2500, 2, size=8).numpy()[rows]

    found = nearest(coarse(pictures(1200, 1, size=8)), Watched(), 2500)  # type: ignore[arg-type]
    assert len(found.rows) == 1200


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (16, 3), (28, 1), (32, 3), (128, 3)])
def test_coarse_points_are_small_and_of_length_one(size: int, channels: int) -> None:
    points = coarse(pictures(5, 0, size, channels))
    side = {8: 8, 16: 8, 28: 14, 32: 16, 128: 16}[size]
    assert points.shape == (5, channels * side**2)
    torch.testing.assert_close(points.norm(dim=1), torch.ones(5))


def test_images_of_one_colour_and_equal_images_give_numbers() -> None:
    train = torch.cat([pictures(20, 2), torch.zeros(2, 1, 16, 16, dtype=torch.uint8)])
    flat = torch.full((4, 1, 16, 16), 200, dtype=torch.uint8)
    found = examine(flat, train, pictures(10, 3))
    assert found.authentic == 0
    assert (found.relative == 0).all()
    assert found.in_train.value == 1
    same = torch.zeros(6, 1, 16, 16, dtype=torch.uint8)
    assert examine(same, same, same).distance_ratio is None
    assert examine(same, same, same).in_train.value == 0.5


@pytest.mark.parametrize("counts", [(0, 5, 5), (5, 1, 5), (5, 5, 0)])
def test_too_few_images_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ChorusError, match="at least 2 training images and 1 held-out image"):
        examine(*(pictures(n, 0) for n in counts))
