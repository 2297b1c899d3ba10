"""Boosting's weights by hand and by their properties, and whose images are drawn how often."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.compute import Runtime
from pipeline.training.schemes.boosting import effective_size, image_weights, uniform_beta, water_level
from pipeline.training.schemes.resampling import bootstrap, resample
from pipeline.training.streams import Streams

FP32 = Runtime(torch.device("cpu"), None)
RATIOS = st.lists(st.floats(0, 100), min_size=1, max_size=40).map(np.array)
BETAS = st.floats(0.01, 1)


def test_weights_by_hand() -> None:
    """Of h = 0, 1, 3 and β = 1/2 two images stay below λ: λ = (3/2 + 1/2) / 2 = 1, weights ∝ 1, 1/2, 0."""
    ratios = np.array([1.0, 3.0, 0.0])
    assert water_level(ratios, 0.5) == pytest.approx(1)
    np.testing.assert_allclose(image_weights(ratios, 0.5), [1 / 3, 0, 2 / 3])
    assert effective_size(image_weights(ratios, 0.5)) == pytest.approx(9 / 5)


@settings(deadline=None)
@given(RATIOS, BETAS)
def test_weights_add_up_and_fall_with_the_ratio(ratios: np.ndarray, beta: float) -> None:
    weights = image_weights(ratios, beta)
    level = water_level(ratios, beta)
    assert weights.sum() == pytest.approx(1)
    assert np.maximum(level - (1 - beta) * ratios, 0).sum() == pytest.approx(len(ratios) * beta)
    assert (np.diff(weights[np.argsort(ratios)]) <= 1e-12).all()


@settings(deadline=None)
@given(RATIOS)
def test_the_first_member_sees_all_images_alike(ratios: np.ndarray) -> None:
    np.testing.assert_allclose(image_weights(ratios, uniform_beta(1)), 1 / len(ratios))


def test_rows_are_drawn_by_the_weights_and_repeat() -> None:
    streams = Streams(0, "fam", 1)
    rows = resample(np.array([0.0, 0.25, 0.75] + [0.0] * 997), streams)
    assert len(rows) == 1000
    assert set(rows.tolist()) == {1, 2}
    assert (rows == 2).float().mean() == pytest.approx(0.75, abs=0.05)
    drawn = bootstrap(1000, streams)
    assert torch.equal(drawn, bootstrap(1000, streams))
    assert len(drawn.unique()) == pytest.approx(1000 * (1 - np.exp(-1)), abs=40)
