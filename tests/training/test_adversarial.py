"""The adversarial step: who is updated when, what is told of it, in both precisions and with all that recipes ask."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.compute import Runtime
from pipeline.models._base import ModelConfig
from pipeline.params import Family
from pipeline.training import loop
from pipeline.training.losses import LOSSES
from pipeline.training.objectives._base import Batch
from pipeline.training.objectives.adversarial import Adversarial
from pipeline.training.state import State
from pipeline.training.streams import Streams

CPU = torch.device("cpu")
FP32, BF16 = Runtime(CPU, None), Runtime(CPU, torch.bfloat16)


def start(architecture: str = "mlp", runtime: Runtime = FP32, **values: Any) -> tuple[Adversarial, State]:
    family = Family(architecture=architecture, kimg=1, batch=8, latent=6, width=8, **values)
    config = ModelConfig(
        architecture,
        1,
        8,
        6,
        8,
        dropout=family.dropout,
        spectral_norm=family.spectral_norm,
        penalised=family.regularisers.penalised,
    )
    return Adversarial(family, config, runtime), loop.build(family, config, runtime, Streams(0, "fam", 0))


def batch(step: int) -> Batch:
    random = torch.Generator().manual_seed(step)
    real = torch.rand(8, 1, 8, 8, generator=random) * 2 - 1
    return Batch(real, torch.randn(8, 6, generator=random), None, step)


def weights(state: State, name: str) -> Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in state.networks[name].parameters()])


def rows(objective: Adversarial, state: State, steps: int) -> list[dict[str, float]]:
    done = [objective.step(state, batch(step)) for step in range(steps)]
    return [dict(zip(objective.columns, numbers.tolist(), strict=True)) for numbers in done]


@pytest.mark.parametrize("discriminator_steps", [1, 2, 3])
def test_the_generator_is_updated_at_every_nth_step(discriminator_steps: int) -> None:
    objective, state = start(discriminator_steps=discriminator_steps)
    updated = []
    for step in range(6):
        before = weights(state, "generator"), weights(state, "discriminator")
        objective.step(state, batch(step))
        assert not torch.equal(before[1], weights(state, "discriminator"))
        updated.append(not torch.equal(before[0], weights(state, "generator")))
    assert updated == [(step + 1) % discriminator_steps == 0 for step in range(6)]


def test_the_numbers_of_a_step_are_those_of_its_batch() -> None:
    """Without an update of the generator all numbers are of the networks as they were."""
    objective, state = start("dcgan", discriminator_steps=2, loss="relativistic")
    given = batch(0)
    with torch.no_grad():
        fake = state.networks["generator"](given.z)
        logits = [state.networks["discriminator"](images) for images in (given.real, fake)]
    expected = {
        "loss_g": LOSSES["relativistic"].generator(*logits),
        "loss_d": LOSSES["relativistic"].discriminator(*logits),
        "logit_real": logits[0].mean(),
        "logit_fake": logits[1].mean(),
    }
    found = dict(zip(objective.columns, objective.step(state, given), strict=True))
    torch.testing.assert_close(found, expected)


def test_updates_are_those_of_the_written_out_formulas() -> None:
    """One step by SGD against autograd on the loss and on the penalty, the generator's against the new critic."""
    values: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.0, "lr": 0.1, "dropout": 0.0}
    objective, state = start(**values, loss="wasserstein", regularisers={"r1": 2.0})
    given = batch(0)
    other = start(**values, loss="wasserstein")[1]
    generator, critic = other.networks["generator"], other.networks["discriminator"]
    real = given.real.requires_grad_()
    slope = torch.autograd.grad(critic(real).sum(), real, create_graph=True)[0]
    fake = generator(given.z)
    loss = critic(fake.detach()).mean() - critic(real).mean() + slope.square().sum((1, 2, 3)).mean()
    for parameter, by in zip(
        critic.parameters(), torch.autograd.grad(loss, list(critic.parameters()), allow_unused=True), strict=True
    ):
        if by is not None:
            parameter.data -= 0.1 * by
    for parameter, by in zip(
        generator.parameters(),
        torch.autograd.grad(-critic(fake).mean(), list(generator.parameters())),
        strict=True,
    ):
        parameter.data -= 0.1 * by
    objective.step(state, batch(0))
    for name in ("discriminator", "generator"):
        torch.testing.assert_close(weights(state, name), weights(other, name))


def test_lazy_penalties_have_a_column_with_zeros_between() -> None:
    penalties = {"r1": 0.5, "r2": 0.5, "gradient_penalty": 1.0, "every": 3}
    found = rows(*start("dcgan", regularisers=penalties), steps=7)
    assert [row["penalty"] > 0 for row in found] == [step % 3 == 0 for step in range(7)]
    assert all("penalty" not in row for row in rows(*start("dcgan", regularisers={"weight_clip": 0.1}), steps=1))


def test_weights_stay_clipped() -> None:
    objective, state = start("dcgan", loss="wasserstein", regularisers={"weight_clip": 0.01}, lr=0.05)
    rows(objective, state, 3)
    assert weights(state, "discriminator").abs().max() <= 0.01
    assert weights(state, "generator").abs().max() > 0.01


def test_no_gradient_is_left_over() -> None:
    objective, state = start("dcgan", discriminator_steps=2, regularisers={"r1": 1.0})
    for step in range(2):
        objective.step(state, batch(step))
        left = [p for network in state.networks.values() for p in network.parameters() if p.grad is not None]
        assert not left
        assert all(parameter.requires_grad for parameter in state.networks["discriminator"].parameters())


def test_power_iterations_follow_the_weights() -> None:
    objective, state = start("dcgan", spectral_norm=True, lr=0.01)
    network = state.networks["discriminator"]
    vectors = {name: value.clone() for name, value in network.named_buffers() if name.endswith(".v")}
    assert vectors
    rows(objective, state, 2)
    assert all(not torch.equal(value, network.get_buffer(name)) for name, value in vectors.items())


EVERYTHING: list[dict[str, Any]] = [
    {},
    {"augment": ["color", "translation", "cutout"], "dropout": 0.2, "discriminator_steps": 2},
    {"regularisers": {"r1": 0.1, "r2": 0.1, "gradient_penalty": 1.0, "every": 2}},
    {"spectral_norm": True},
    {"regularisers": {"weight_clip": 0.02}, "optimizer": "sgd"},
]


@pytest.mark.parametrize("runtime", [FP32, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("values", EVERYTHING)
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_with_every_regulariser_stays_finite(loss: str, values: dict[str, Any], runtime: Runtime) -> None:
    objective, state = start("dcgan", runtime, loss=loss, **values)
    for step in range(3):
        assert objective.step(state, batch(step)).isfinite().all()
    assert weights(state, "discriminator").isfinite().all()
    assert weights(state, "generator").isfinite().all()
    assert all(p.dtype == torch.float32 for network in state.networks.values() for p in network.parameters())


def test_real_and_generated_images_are_augmented_alike_and_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    objective, state = start(augment=["cutout"])
    seen: list[Tensor] = []
    network = state.networks["discriminator"]
    network.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    objective.step(state, batch(0))
    assert len(seen) == 3  # real and generated ones for the discriminator, generated ones for the generator
    holes = [(images == 0).flatten(1).sum(1) for images in seen]
    assert all((count >= 4).all() for count in holes)
    assert not torch.equal(seen[1] == 0, seen[2] == 0)
