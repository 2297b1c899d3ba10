"""The moving average: its half-life, its warm-up, its buffers."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.models._base import ModelConfig, build_generator
from pipeline.training.ema import ema_decay, exponent, power_decay, relative_width, settle_buffers, update


def test_half_is_forgotten_after_a_half_life() -> None:
    assert ema_decay(64, 10_000_000, halflife=640, rampup=None) ** 10 == pytest.approx(0.5)


def test_warm_up_shortens_the_half_life_to_a_share_of_the_images_seen() -> None:
    assert ema_decay(100, 2000, halflife=10_000, rampup=0.05) == pytest.approx(0.5)
    assert ema_decay(100, 10_000_000, halflife=10_000, rampup=0.05) == ema_decay(100, 1, halflife=10_000, rampup=None)


def test_no_half_life_follows_the_network() -> None:
    assert ema_decay(64, 64, halflife=0, rampup=0.05) == 0


def test_update_is_the_weighted_mean() -> None:
    average, network = nn.Linear(2, 1), nn.Linear(2, 1)
    expected = 0.75 * average.weight + 0.25 * network.weight
    update(list(average.parameters()), list(network.parameters()), 0.75)
    torch.testing.assert_close(average.weight, expected)


def test_exponents_by_hand() -> None:
    """γ = 0 is the plain mean, uniform on [0, t]: σ² = 1/12. γ = 1 has the density 2τ: σ² = 1/2 - 4/9.

    16.97 and 6.94 are the paper's (section 3.1).
    """
    assert relative_width(0) == pytest.approx(12**-0.5)
    assert relative_width(1) == pytest.approx((1 / 18) ** 0.5)
    assert exponent(12**-0.5) == pytest.approx(0, abs=1e-6)
    assert exponent(18**-0.5) == pytest.approx(1)
    assert exponent(0.05) == pytest.approx(16.97, abs=0.005)
    assert exponent(0.10) == pytest.approx(6.94, abs=0.005)


@given(st.floats(0.001, 0.288))
def test_the_exponent_is_the_inverse_of_the_width(width: float) -> None:
    assert relative_width(exponent(width)) == pytest.approx(width, rel=1e-6)


@pytest.mark.parametrize("width", [0.0, -0.1, 0.3, 1.0])
def test_widths_that_no_profile_has_are_refused(width: float) -> None:
    with pytest.raises(ValueError, match="relative width"):
        exponent(width)


def test_power_decay_gives_each_step_its_share_of_the_profile() -> None:
    """After n steps of 10 images step i weighs (i^(γ+1) - (i-1)^(γ+1)) / n^(γ+1), whatever the average began with."""
    gamma, steps = exponent(0.1), 30
    average = torch.full((steps,), 7.0, dtype=torch.float64)
    for step in range(steps):
        weights = torch.zeros(steps, dtype=torch.float64)
        weights[step] = 1  # so the average tells the weight of each step
        update([average], [weights], power_decay(10, 10 * (step + 1), gamma))
    ends = torch.arange(steps + 1, dtype=torch.float64) ** (gamma + 1) / steps ** (gamma + 1)
    torch.testing.assert_close(average, ends.diff())


def test_batch_norm_statistics_are_those_of_the_averaged_weights() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4), nn.BatchNorm1d(4))
    average = copy.deepcopy(network)
    average[0].weight.data.mul_(5)
    batches = [torch.randn(200, 3) for _ in range(4)]
    settle_buffers(average, network, [(z,) for z in batches])
    assert not average.training
    inner = [average[0](z) for z in batches]
    torch.testing.assert_close(average[1].running_mean, torch.stack([x.mean(0) for x in inner]).mean(0))
    torch.testing.assert_close(average[1].running_var, torch.stack([x.var(0) for x in inner]).mean(0))
    # In evaluation mode the output is then as normalised as in training.
    out = average(torch.cat(batches))
    torch.testing.assert_close(out.std(0), torch.ones(4), atol=0.05, rtol=0)


def test_other_buffers_are_the_network_s() -> None:
    average, network = nn.Linear(1, 1), nn.Linear(1, 1)
    average.register_buffer("sigma", torch.ones(()))
    network.register_buffer("sigma", torch.tensor(0.3))
    settle_buffers(average, network, [])
    assert average.sigma.item() == pytest.approx(0.3)


def test_parts_that_are_no_longer_trained_keep_their_statistics() -> None:
    config = ModelConfig("dcgan", 1, 8, 6, 4)
    cascade = replace(config, architecture="cascade", parts=(config, ModelConfig("refiner", 1, 8, 6, 4)))
    network = build_generator(cascade).train()
    for buffer in network.buffers():
        buffer.fill_(3)
    average = copy.deepcopy(network)
    settle_buffers(average, network, [(torch.randn(8, 6),)])
    assert all(bool((buffer == 3).all()) for buffer in average.buffers())
    assert not average.training
