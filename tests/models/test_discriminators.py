"""What recipes ask of discriminators, of every registered architecture that has one."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import pipeline.models
from pipeline.errors import ChorusError
from pipeline.layers.spectral import SpectralNorm
from pipeline.models._base import ModelConfig, architecture, build_discriminator
from pipeline.params import registered

NAMES = [name for name in registered(pipeline.models) if architecture(name).discriminator]
NORMALISABLE = [name for name in NAMES if name != "r3gan"]  # whose residual branches start at zero


def build(name: str, **values: object) -> nn.Module:
    torch.manual_seed(0)
    network = build_discriminator(replace(ModelConfig(name, 1, 16, 6, 8), **values))  # type: ignore[arg-type]
    assert network is not None
    return network


def images(n: int = 4) -> Tensor:
    return torch.randn(n, 1, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
def test_dropout_is_drawn_in_training_alone_and_can_be_left_out(name: str) -> None:
    network = build(name, dropout=0.5)
    assert not torch.equal(network(images()), network(images()))
    network.eval()
    assert torch.equal(network(images()), network(images()))
    without = build(name, dropout=0.0)
    assert torch.equal(without(images()), without(images()))


@pytest.mark.parametrize(
    ("name", "asked"),
    [*((name, "penalised") for name in NAMES), *((name, "spectral_norm") for name in NORMALISABLE)],
)
def test_each_image_is_judged_alone_where_its_gradient_counts(name: str, asked: str) -> None:
    network = build(name, **{asked: True}, dropout=0.0)
    assert not any(isinstance(module, _BatchNorm) for module in network.modules())
    x = images().requires_grad_()
    (gradient,) = torch.autograd.grad(network(x)[0], x)
    assert gradient[0].any()
    assert not gradient[1:].any()


@pytest.mark.parametrize("name", NORMALISABLE)
def test_every_weight_is_normalised(name: str) -> None:
    network = build(name, spectral_norm=True, class_shares=(0.5, 0.5))
    weights = [key for key, value in network.named_parameters() if value.ndim > 1]
    assert weights
    assert all(key.endswith("parametrizations.weight.original") for key in weights)
    assert sum(isinstance(module, SpectralNorm) for module in network.modules()) == len(weights)


def test_layers_that_start_at_zero_refuse_the_recipe() -> None:
    with pytest.raises(ChorusError, match="spectral_norm needs layers that do not start at zero"):
        build("r3gan", spectral_norm=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("values", [{"discriminators": 3}, {"outputs": 4}, {"class_shares": (0.5, 0.5), "outputs": 3}])
def test_whatever_its_kind_it_gives_one_logit_an_image(name: str, values: dict[str, object]) -> None:
    network = build(name, **values)
    y = torch.arange(4) % 2 if "class_shares" in values else None
    assert network(images(), y).shape == (4,)
    assert network.eval()(images()).shape == (4,)
