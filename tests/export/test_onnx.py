"""Generators as ONNX against torch: any batch, classes, eight bits, and what is refused."""

import pytest
import torch
from torch import Tensor, nn

import pipeline.models
from pipeline.errors import ChorusError
from pipeline.export.onnx import OnnxGenerator, inputs, largest_difference, quantise, to_onnx
from pipeline.fusion.samplers import CandidateSampler, draw
from pipeline.models._base import ModelConfig, build_generator
from pipeline.params import registered

SHARES = (0.25, 0.75)


def made(architecture: str, shares: tuple[float, ...] = ()) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        steps = 1 if architecture == "flow" else None
        config = ModelConfig(architecture, 1, 8, 8, 8, class_shares=shares, sampling_steps=steps)
        network = build_generator(config)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):  # statistics that a graph must not take for the default ones
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
    return network.eval().requires_grad_(False)


def agrees(network: nn.Module) -> None:
    exported = OnnxGenerator(to_onnx(network), network)
    assert largest_difference(network, exported) < 1e-4
    for count in (1, 2, 5):
        given = inputs(network, count, 1, "test")
        torch.testing.assert_close(exported(*given), network(*given), rtol=0, atol=1e-4)
    samplers = CandidateSampler(network), CandidateSampler(exported)
    one, other = (draw(sampler, 20, seed=3).int() for sampler in samplers)
    assert (one - other).abs().max() <= 1  # a rounding to uint8 may fall to the other side
    assert samplers[0].cost == samplers[1].cost


@pytest.mark.parametrize(("architecture", "shares"), [("mlp", SHARES), ("dcgan", ()), ("recurrent", ())])
def test_draws_torchs_images_in_batches_of_any_size(architecture: str, shares: tuple[float, ...]) -> None:
    agrees(made(architecture, shares))


@pytest.mark.slow
@pytest.mark.parametrize("shares", [(), SHARES])
@pytest.mark.parametrize("architecture", registered(pipeline.models))
def test_every_architecture_has_a_graph(architecture: str, shares: tuple[float, ...]) -> None:
    agrees(made(architecture, shares))


def test_eight_bits_are_smaller_and_near() -> None:
    network = build_generator(ModelConfig("mlp", 1, 8, 16, 64)).eval().requires_grad_(False)
    whole = to_onnx(network)
    small = quantise(whole, network)
    assert len(small) < 0.5 * len(whole)
    given = inputs(network, 64, 1, "test")
    difference = (OnnxGenerator(small, network)(*given) - network(*given)).abs()
    assert 0 < difference.mean() < 0.02
    assert quantise(whole, network) == small


class Branching(nn.Module):
    """What the mixture of generators does: the values of the latent decide which graph runs."""

    latent, class_shares = 4, ()

    def forward(self, z: Tensor) -> Tensor:
        return z[:, None, :2, None] if z.sum() > 0 else z[:, None, 2:, None]


class Drifting(nn.Module):
    """Differs on each call, so no graph of it agrees."""

    latent, class_shares, calls = 4, (), 0

    def forward(self, z: Tensor) -> Tensor:
        self.calls += 1
        return z[:, None, :, None] * self.calls


@pytest.mark.parametrize(("network", "words"), [(Branching(), "no ONNX graph"), (Drifting(), "differ from torch's")])
def test_what_has_no_true_graph_is_refused(network: nn.Module, words: str) -> None:
    with pytest.raises(ChorusError, match=words):
        to_onnx(network)


def test_seeded_inputs_repeat_and_know_the_classes() -> None:
    z, y = inputs(made("mlp", SHARES), 50, 0, "a")
    assert torch.equal(z, inputs(made("mlp"), 50, 0, "a")[0])
    assert set(y.tolist()) == {0, 1}
    assert not torch.equal(z, inputs(made("mlp"), 50, 0, "b")[0])
