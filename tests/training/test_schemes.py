"""Boosting's weights by hand and by their properties, bootstraps, and the ring of eight Gaussians."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.compute import Runtime
from pipeline.models import _base, mlp
from pipeline.models._base import Architecture, ModelConfig
from pipeline.params import Family
from pipeline.training import loop
from pipeline.training.loop import Data
from pipeline.training.schemes.boosting import effective_size, image_weights, mixture_of, uniform_beta, water_level
from pipeline.training.schemes.classifier import SHARE, density_ratios, train_classifier
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


MODES, MEMBERS = 8, 6
ANGLES = 2 * torch.pi * torch.arange(MODES) / MODES
CENTRES = 0.7 * torch.stack([ANGLES.cos(), ANGLES.sin()], 1)
CONFIG = ModelConfig("spot", 2, 1, 2, 4, dropout=0.0)


class Spot(nn.Module):
    """The weakest generator: one Gaussian of the modes' width, whose centre alone is learned."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.latent = config.latent
        self.centre = nn.Parameter(0.1 * torch.randn(2))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return (self.centre + 0.05 * z)[:, :, None, None]


@pytest.fixture
def spot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_base._REGISTRY, "spot", Architecture("spot", Spot, mlp.Discriminator))


def ring(seed: int) -> Data:
    """Eight Gaussians on a ring, as images of one pixel and two channels."""
    random = torch.Generator().manual_seed(seed)
    points = CENTRES[torch.arange(800) % MODES] + 0.05 * torch.randn(800, 2, generator=random)
    return Data(((points + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)[:, :, None, None])


def recipe(kimg: float) -> Family:
    return Family(architecture="mlp", kimg=kimg, batch=32, lr=0.02, lr_discriminator=0.02, ema_halflife_kimg=0.5)


def trained(family: Family, data: Data, streams: Streams) -> tuple[nn.Module, ModelConfig]:
    state = loop.build(family, CONFIG, FP32, streams)
    for _ in loop.train(data, family, CONFIG, FP32, streams, state):
        pass
    return state.average, CONFIG


def boosted(data: Data, family: Family, seed: int) -> nn.Module:
    parts: list[tuple[nn.Module, ModelConfig]] = []
    for member in range(MEMBERS):
        streams, seen = Streams(seed, "boosting", member), data
        if parts:
            *_, classifier = train_classifier(data, mixture_of(parts)[0], family, CONFIG, FP32, streams)
            weights = image_weights(density_ratios(classifier, data, FP32), uniform_beta(member + 1))
            seen = replace(data, rows=resample(weights, streams))
        parts.append(trained(family, seen, streams))
    return mixture_of(parts)[0]


def bagged(data: Data, family: Family, seed: int) -> nn.Module:
    each = [Streams(seed, "bagging", member) for member in range(MEMBERS)]
    return mixture_of([trained(family, replace(data, rows=bootstrap(800, own)), own) for own in each])[0]


def covered(mixture: nn.Module) -> int:
    """How many modes get at least a fifth of their share of 1,000 images."""
    z = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    distances, nearest = torch.cdist(mixture(z).flatten(1), CENTRES).min(1)
    return int((torch.bincount(nearest[distances < 0.2], minlength=MODES) >= 1000 / MODES / 5).sum())


@pytest.mark.slow
def test_boosting_covers_more_modes_of_a_ring_than_bagging(spot: None) -> None:
    """At an equal budget: what the classifiers see is added to the bagged members' own."""
    kimg, found = 8.0, []
    for seed in range(3):
        data = ring(seed)
        with_classifiers = recipe(kimg * (1 + SHARE))
        found.append((covered(boosted(data, recipe(kimg), seed)), covered(bagged(data, with_classifiers, seed))))
    assert all(one > other for one, other in found), found
