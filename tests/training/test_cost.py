"""What a training image costs, counted by hand."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.models._base import ModelConfig
from pipeline.params import Family
from pipeline.training import cost


@pytest.mark.parametrize(
    ("layer", "operations"),
    [
        (nn.Conv2d(6, 8, 3, padding=1, stride=2), 2 * 5 * 4 * 4 * 8 * 6 * 9),
        (nn.Conv2d(6, 8, 3, padding=1, groups=2), 2 * 5 * 8 * 8 * 8 * 3 * 9),
        (nn.ConvTranspose2d(6, 8, 4, padding=1, stride=2), 2 * 5 * 8 * 8 * 8 * 6 * 16),
    ],
    ids=["strided", "grouped", "transposed"],
)
def test_each_gradient_of_a_convolution_costs_as_much_as_its_forward_pass(layer: nn.Module, operations: int) -> None:
    images = torch.zeros(5, 6, 8, 8, requires_grad=True)
    counter = FlopCounterMode(display=False, custom_mapping=cost.FORMULAS)
    with counter:
        layer(images).sum().backward()
    assert counter.get_total_flops() == 3 * operations


def test_a_step_of_the_mlp_worked_by_hand() -> None:
    config = ModelConfig("mlp", 1, 8, 3, 1)
    generator = 3 * 4 + 4 * 8 + 8 * 16 + 16 * 64
    discriminator = 64 * 16 + 16 * 8 + 8 * 4 + 4
    # The generator: forward and both gradients, but that of the latent. The discriminator's step: on real and generated
    # images, both gradients but that of the images. The generator's step through it: forward and one gradient.
    passes = (3 * generator - 3 * 4) + 2 * (3 * discriminator - 64 * 16) + 2 * discriminator
    assert cost.flops_per_image(Family(architecture="mlp", kimg=1), config) == 2 * passes


def test_a_generator_that_is_updated_at_each_third_step() -> None:
    """It runs at every step; its gradients and the discriminator's part in them are taken at each third."""
    config = ModelConfig("mlp", 1, 8, 3, 1)
    generator = 3 * 4 + 4 * 8 + 8 * 16 + 16 * 64
    discriminator = 64 * 16 + 16 * 8 + 8 * 4 + 4
    at_each = generator + 2 * (3 * discriminator - 64 * 16)
    at_a_third = 2 * generator - 3 * 4 + 2 * discriminator
    family = Family(architecture="mlp", kimg=1, discriminator_steps=3)
    assert cost.flops_per_image(family, config) == pytest.approx(2 * (at_each + at_a_third / 3), rel=1e-12)


def test_lazy_penalties_cost_their_share_whenever_the_generator_is_updated() -> None:
    config = ModelConfig("mlp", 1, 8, 3, 1)

    def of(**values: object) -> float:
        return cost.flops_per_image(Family.model_validate({"architecture": "mlp", "kimg": 1, **values}), config)

    penalty = of(regularisers={"r1": 1.0}) - of()
    assert penalty > 0
    lazy = of(regularisers={"r1": 1.0, "every": 4}, discriminator_steps=2)
    assert lazy - of(discriminator_steps=2) == pytest.approx(penalty / 4, rel=1e-9)


@pytest.mark.parametrize("architecture", ["flow", "vae", "r3gan"])
def test_costs_grow_with_the_width_and_repeat(architecture: str) -> None:
    family = Family(architecture=architecture, kimg=1)
    small, large = (cost.flops_per_image(family, ModelConfig(architecture, 1, 16, 10, width)) for width in (8, 16))
    assert large > 2 * small
    assert cost.flops_per_image(family, ModelConfig(architecture, 1, 16, 10, 8)) == small
