"""Flow matching: the integrator against known solutions, the objective by hand, and a toy that it learns."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.compute import Runtime
from pipeline.fusion.samplers import CandidateSampler
from pipeline.models._base import ModelConfig
from pipeline.models.flow import STEPS, Generator
from pipeline.params import Family
from pipeline.training import loop
from pipeline.training.loop import Data
from pipeline.training.objectives._base import Batch, objective_for
from pipeline.training.streams import Streams

CPU = Runtime(torch.device("cpu"), None)
STREAMS = Streams(0, "flow", 0)
CONFIG = ModelConfig("flow", 1, 8, 64, 8)


class Field(Generator):
    """A flow whose velocity field is given, in place of the network."""

    def __init__(self, field: Any, steps: int) -> None:
        super().__init__(ModelConfig("flow", 1, 8, 64, 4, sampling_steps=steps))
        self.field = field
        self.calls = 0

    def velocity(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        self.calls += 1
        velocity: Tensor = self.field(x, t[:, None, None, None])
        return velocity


def starts(n: int = 5, scale: float = 0.1) -> Tensor:
    return (scale * torch.randn(n, 64, generator=torch.Generator().manual_seed(0), dtype=torch.double)).clamp(-0.3, 0.3)


def test_a_linear_field_is_integrated_to_second_order() -> None:
    z = starts()
    exact = (math.e * z).unflatten(1, (1, 8, 8))
    errors = [float((Field(lambda x, t: x, steps)(z) - exact).abs().max()) for steps in (8, 16, 32)]
    assert [errors[0] / errors[1], errors[1] / errors[2]] == pytest.approx([4, 4], rel=0.1)


def test_a_field_linear_in_time_is_integrated_exactly() -> None:
    z = starts()
    moved = Field(lambda x, t: 0.6 * t.expand_as(x), steps=3)(z)
    torch.testing.assert_close(moved, z.unflatten(1, (1, 8, 8)) + 0.3)


def test_the_field_of_a_gaussian_carries_noise_to_it() -> None:
    """Of x₁ ~ N(m, s²): v(x, t) = m + (ts² - (1 - t)) / ((1 - t)² + t²s²) · (x - tm), which maps z to m + sz."""
    m, s = 0.2, 0.25

    def field(x: Tensor, t: Tensor) -> Tensor:
        return m + (t * s**2 - (1 - t)) / ((1 - t) ** 2 + (t * s) ** 2) * (x - t * m)

    z = starts(scale=1.0)
    torch.testing.assert_close(Field(field, 100)(z), (m + s * z).unflatten(1, (1, 8, 8)), atol=2e-3, rtol=0)


@pytest.mark.parametrize("steps", [1, 4])
def test_an_image_takes_two_passes_a_step(steps: int) -> None:
    flow = Field(lambda x, t: 0 * x, steps)
    flow(starts())
    assert flow.calls == flow.passes == CandidateSampler(flow).cost == 2 * steps
    assert Generator(CONFIG).passes == 2 * STEPS


def test_images_stay_in_range() -> None:
    assert Field(lambda x, t: 100 * x, 2)(starts()).abs().max() == 1


def test_the_loss_is_the_mean_square_of_the_velocity_that_is_missed() -> None:
    """A new network is the zero field, so that its loss is the mean square of x₁ - x₀."""
    family = Family(architecture="flow", kimg=1, width=8)
    state = loop.build(family, CONFIG, CPU, STREAMS)
    objective = objective_for(family, CONFIG, CPU)
    real, z = torch.rand(6, 1, 8, 8), torch.randn(6, objective.noise)
    loss = objective.step(state, Batch(real, z, None, 0))
    torch.testing.assert_close(loss, (real - z.reshape(real.shape)).square().mean()[None])


def test_learns_two_modes_of_small_images() -> None:
    family = Family(architecture="flow", kimg=9.6, batch=64, width=8, lr=3e-3, betas=(0.9, 0.99))
    levels = torch.tensor([64, 191], dtype=torch.uint8).repeat(200)  # ±0.5
    data = Data(levels[:, None, None, None].expand(-1, 1, 8, 8).contiguous())
    state = loop.build(family, CONFIG, CPU, STREAMS)
    for _ in loop.train(data, family, CONFIG, CPU, STREAMS, state):
        pass
    assert state.history[-1]["loss"] < 0.5 * state.history[0]["loss"]
    images = CandidateSampler(state.average).images(torch.randn(200, 64))
    level = images.mean((1, 2, 3))
    assert level.abs().mean().item() == pytest.approx(0.5, abs=0.1)
    assert images.flatten(1).std(1).mean().item() < 0.15
    assert 0.3 < (level > 0).float().mean().item() < 0.7
