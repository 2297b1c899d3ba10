"""Tests of the objective that compares images by a discriminator's features."""

import torch

from pipeline.compute import Runtime
from pipeline.models._base import ModelConfig
from pipeline.params import Family
from pipeline.training import loop
from pipeline.training.objectives._base import Batch, objective_for
from pipeline.training.objectives.variational import divergence
from pipeline.training.streams import Streams

RUNTIME = Runtime(torch.device("cpu"), None)
FAMILY = Family(architecture="vaegan", kimg=1, batch=16, latent=4, width=8, lr=0.002)
CONFIG = ModelConfig("vaegan", 1, 8, FAMILY.latent, FAMILY.width)


def test_the_divergence_of_a_shifted_and_a_narrow_normal() -> None:
    mean, log_variance = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    assert divergence(mean, log_variance) == 2.0  # ½·2²
    # ½(¼ - 1 + ln 4) for a variance of a quarter
    torch.testing.assert_close(divergence(torch.zeros(1, 1), torch.tensor([[0.25]]).log()), torch.tensor(0.31815))


def test_reconstructions_come_nearer_by_the_discriminators_features() -> None:
    objective = objective_for(FAMILY, CONFIG, RUNTIME)
    state = loop.build(FAMILY, CONFIG, RUNTIME, Streams(0, "vaegan", 0))
    torch.manual_seed(0)
    real = torch.where(torch.arange(16)[:, None, None, None] % 2 == 0, 0.8, -0.8).expand(16, 1, 8, 8).contiguous()
    rows = [
        objective.step(state, Batch(real, torch.randn(16, FAMILY.latent), None, step)).tolist() for step in range(200)
    ]
    assert len(rows[0]) == len(objective.columns)
    with torch.no_grad():
        again = state.networks["generator"](state.networks["encoder"](real)[0])
    bright, dark = (float(images.mean()) for images in (again[0::2], again[1::2]))
    assert bright - dark > 1.0, (bright, dark)


def test_each_network_moves_by_its_own_loss() -> None:
    """The discriminator takes no part in the second half of a step: its gradients stay empty there."""
    objective = objective_for(FAMILY, CONFIG, RUNTIME)
    state = loop.build(FAMILY, CONFIG, RUNTIME, Streams(0, "vaegan", 0))
    before = {role: [p.detach().clone() for p in net.parameters()] for role, net in state.networks.items()}
    real = torch.rand(16, 1, 8, 8) * 2 - 1
    objective.step(state, Batch(real, torch.randn(16, FAMILY.latent), None, 0))
    for role, network in state.networks.items():
        assert any(not torch.equal(a, b) for a, b in zip(before[role], network.parameters(), strict=True)), role
        assert all(p.requires_grad for p in network.parameters())
        assert all(p.grad is None for p in network.parameters()), role
