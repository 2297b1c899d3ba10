"""Losses against numbers worked out by hand."""

from math import exp, log
from typing import get_args

import pytest
import torch

from pipeline.params import Family
from pipeline.training.losses import DEFAULT, LOSSES

REAL, FAKE = torch.tensor([2.0, 0.5]), torch.tensor([-1.0, 3.0])


def softplus(x: float) -> float:
    return log(1 + exp(x))


ENTROPY = (softplus(-2) + softplus(-0.5)) / 2 + (softplus(-1) + softplus(3)) / 2
EXPECTED = {
    "minimax": (ENTROPY, -(softplus(-1) + softplus(3)) / 2),
    "nonsaturating": (ENTROPY, (softplus(1) + softplus(-3)) / 2),
    # ½·mean(1², 0.5²) + ½·mean(1², 3²); ½·mean(2², 2²)
    "lsgan": (0.3125 + 2.5, 2.0),
    # mean(0, 0.5) + mean(0, 4); -mean(-1, 3)
    "hinge": (0.25 + 2.0, -1.0),
}


@pytest.mark.parametrize("name", LOSSES)
def test_values(name: str) -> None:
    loss = LOSSES[name]
    discriminator, generator = EXPECTED[name]
    assert loss.discriminator(REAL, FAKE).item() == pytest.approx(discriminator, rel=1e-6)
    assert loss.generator(FAKE).item() == pytest.approx(generator, rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_generator_is_pulled_towards_higher_logits(name: str) -> None:
    logits = torch.tensor([-0.5, 0.2], requires_grad=True)
    LOSSES[name].generator(logits).backward()
    assert (logits.grad < 0).all()


def test_parameters_allow_exactly_these_losses() -> None:
    literal, _none = get_args(Family.model_fields["loss"].annotation)
    assert set(get_args(literal)) == set(LOSSES)
    assert DEFAULT in LOSSES
