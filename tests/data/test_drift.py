"""Drift of the data: a distance that needs no network, calibrated by the images themselves."""

import numpy as np
import pytest
from scipy.stats import chi2

from pipeline.data.drift import AT_MOST, SIDE, Sketch, classes, shift, sketch, small
from pipeline.evaluation.frechet import Moments
from tests.factories import structured_images


def images(n: int, seed: int, size: int = 16, channels: int = 1, kinds: int = 3) -> np.ndarray:
    return structured_images(n, size, channels, np.arange(n) % kinds, seed)


def test_small_pixels_are_means_of_the_large_ones() -> None:
    flat = np.full((3, 2, 32, 32), 51, np.uint8)
    np.testing.assert_allclose(small(flat), np.full((3, 2 * SIDE**2), 0.2), rtol=1e-6)
    halves = np.zeros((1, 1, 16, 16), np.uint8)
    halves[..., 8:] = 255
    pixels = small(halves).reshape(SIDE, SIDE)
    assert pixels[:, :3].max() == 0
    assert pixels[:, 5:].min() == 1


def test_an_image_that_is_kept_larger_looks_the_same() -> None:
    fine = np.repeat(np.repeat(images(4, 0, size=16), 2, 2), 2, 3)
    assert np.abs(small(fine) - small(images(4, 0, size=16))).max() < 0.05


def test_at_most_so_many_images_are_looked_at() -> None:
    assert len(small(np.zeros((AT_MOST + 5, 1, 8, 8), np.uint8))) == AT_MOST


@pytest.mark.parametrize(("now", "before"), [(300, 300), (600, 150)])
def test_another_draw_is_no_change_and_lies_where_chance_says(now: int, before: int) -> None:
    found = [shift(small(images(now, seed)), sketch(small(images(before, 50 + seed))), seed) for seed in range(8)]
    assert not any(each.changed for each in found)
    chance = np.mean([each.chance for each in found])
    assert np.mean([each.distance for each in found]) == pytest.approx(chance, rel=0.25)


def test_the_same_images_are_no_distance_apart() -> None:
    pixels = small(images(200, 1))
    assert shift(pixels, sketch(pixels), 0).distance == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("change", ["brighter", "less contrast", "a kind is gone"])
def test_changes_are_seen(change: str) -> None:
    before = images(400, 2)
    now = images(400, 3, kinds=2 if change == "a kind is gone" else 3)
    if change == "brighter":
        now = (now.astype(int) + 15).clip(0, 255).astype(np.uint8)
    if change == "less contrast":
        now = (128 + (now.astype(int) - 128) * 0.8).astype(np.uint8)
    assert shift(small(now), sketch(small(before)), 0).changed


def test_distance_is_a_share_of_the_variance() -> None:
    pixels = small(images(100, 4))
    here = sketch(pixels)
    moved = Sketch(100, Moments(here.moments.mean + 0.1, here.moments.covariance))
    expected = 0.1**2 * SIDE**2 / np.trace(here.moments.covariance)
    assert shift(pixels, moved, 0).distance == pytest.approx(expected, rel=1e-6)
    assert moved.channels == 1


def test_constant_images_are_no_error() -> None:
    pixels = small(np.full((10, 1, 8, 8), 7, np.uint8))
    assert not shift(pixels, sketch(pixels), 0).changed


def test_shares_of_classes() -> None:
    told = classes({"a": 30, "b": 70}, {"a": 50, "b": 50})
    assert told["rows"] == [{"name": "a", "share": 0.3, "before": 0.5}, {"name": "b", "share": 0.7, "before": 0.5}]
    assert told["variation"] == pytest.approx(0.2)
    # Yates: (|30·50 - 70·50| - 100)² · 200 / (100 · 100 · 80 · 120).
    statistic = (abs(30 * 50 - 70 * 50) - 100) ** 2 * 200 / (100 * 100 * 80 * 120)
    assert told["p_value"] == pytest.approx(chi2.sf(statistic, 1))
    assert not told["changed"]
    assert classes({"a": 300, "b": 700}, {"a": 500, "b": 500})["changed"]


def test_classes_that_come_and_go() -> None:
    told = classes({"a": 90, "new": 10, "empty": 0}, {"a": 90, "gone": 10})
    shares = {row["name"]: (row["share"], row["before"]) for row in told["rows"]}
    assert shares == {"a": (0.9, 0.9), "new": (0.1, None), "empty": (0.0, None), "gone": (None, 0.1)}
    assert told["changed"]
    alone = classes({"a": 5}, {"a": 9})
    assert (alone["p_value"], alone["changed"], alone["variation"]) == (None, False, 0.0)
