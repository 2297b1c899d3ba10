"""What counts as unhealthy, that each kind is found in time, and that healthy trainings are left alone."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.compute import Runtime
from pipeline.models._base import ModelConfig
from pipeline.params import Family
from pipeline.training import health, loop
from pipeline.training.loop import Data
from pipeline.training.state import State
from pipeline.training.streams import Streams
from tests.factories import structured_images

RUNTIME, STREAMS = Runtime(torch.device("cpu"), None), Streams(0, "fam", 0)


def noise(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize(
    ("losses", "fault"),
    [
        ({"loss_g": 40.0, "logit_real": 2e4}, None),
        ({"loss_g": -2e4}, r"loss_g exploded to -2e\+04"),
        ({"loss_g": 1.0, "logit_real": float("nan")}, "logit_real is no longer a number"),
        ({"loss_g": float("inf"), "loss_d": float("nan")}, "loss_g, loss_d is no longer a number"),
    ],
)
def test_faults_of_losses(losses: dict[str, float], fault: str | None) -> None:
    found = health.fault_of_losses(losses)
    assert found is None if fault is None else re.fullmatch(fault, str(found))


def test_collapse_is_told_from_variety() -> None:
    reference = health.reference_of(noise(256))
    assert health.collapse_of(noise(256, seed=1), reference) is None
    constant = noise(1, seed=2).expand(256, -1, -1, -1)
    assert "its variance is 0.00%" in str(health.collapse_of(constant, reference))
    # A few modes have all the variance one could want.
    modes = noise(10, seed=3).repeat(26, 1, 1, 1)[:256]
    assert "100% of the images have a near duplicate" in str(health.collapse_of(modes, reference))


def test_large_images_are_compared_at_eight_by_eight() -> None:
    assert health.pooled(torch.zeros(3, 3, 64, 64)).shape == (3, 192)
    assert health.pooled(torch.zeros(3, 1, 1, 2)).shape == (3, 2)


def test_distance_to_the_nearest_other() -> None:
    assert health.nearest(torch.tensor([[0.0], [1.0], [4.0]])).tolist() == [1, 1, 3]


def test_real_images_that_are_all_alike_accuse_nobody() -> None:
    reference = health.reference_of(torch.zeros(10, 1, 8, 8))
    assert health.collapse_of(torch.zeros(256, 1, 8, 8), reference) is None


def test_checks_come_every_25_kimg_whatever_the_batch() -> None:
    assert [nimg for nimg in range(64, 80_000, 64) if health.is_due(nimg, 64)] == [25_024, 50_048, 75_008]


def training(provoke: Any = None, rows: Tensor | None = None, **values: Any) -> list[State]:
    """Train a small mlp, calling `provoke(state)` after every step; return the states at which it was healthy."""
    family = Family(architecture="mlp", **{"kimg": 110, "batch": 500, "latent": 8, "width": 8, "lr": 1e-3, **values})
    config = ModelConfig("mlp", 1, 8, family.latent, family.width)
    state = loop.build(family, config, RUNTIME, STREAMS)
    images = torch.from_numpy(structured_images(400, 8, 1, np.arange(400) % 3))
    healthy = []
    for _ in loop.train(Data(images, rows=rows), family, config, RUNTIME, STREAMS, state):
        if state.healthy:
            healthy.append(state.nimg)
        if provoke is not None:
            provoke(state)
    return healthy


def weights_of(state: State, name: str) -> list[nn.Parameter]:
    return list(state.networks[name].parameters())


@torch.no_grad()
def forget_the_latent(state: State) -> None:
    if state.nimg > 26_000:
        weights_of(state, "generator")[0].zero_()


@torch.no_grad()
def lose_a_number(state: State) -> None:
    if state.nimg == 26_000:
        weights_of(state, "generator")[0][0, 0] = float("nan")


@torch.no_grad()
def shout(state: State) -> None:
    if state.nimg > 26_000:
        weights_of(state, "discriminator")[-1].fill_(3e4)


def test_a_healthy_training_says_so_at_each_check() -> None:
    assert training() == [25_000, 50_000, 75_000, 100_000]


@pytest.mark.parametrize(
    ("provoke", "reason"),
    [
        (forget_the_latent, "the output collapsed"),
        (lose_a_number, "no longer a number"),
        (shout, "exploded"),
    ],
)
def test_each_fault_is_found_within_50_kimg(provoke: Any, reason: str) -> None:
    with pytest.raises(health.Unhealthy, match=rf"fam/r0: .*{reason}.*lower families\.fam\.lr") as caught:
        training(provoke)
    assert caught.value.nimg <= 26_000 + 50_000


def test_images_that_an_epoch_repeats_are_compared_with_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeated as by a bootstrap, they would have near duplicates themselves, and no collapse would be one."""
    compared: list[Tensor] = []
    plain = health.reference_of
    monkeypatch.setattr(health, "reference_of", lambda real: compared.append(real) or plain(real))
    training(rows=torch.arange(400) // 100, kimg=1)
    assert len(compared[0].flatten(1).unique(dim=0)) == len(compared[0]) == 256


def test_one_suspicion_alone_is_forgiven() -> None:
    lost: list[Tensor] = []

    @torch.no_grad()
    def for_a_while(state: State) -> None:
        weight = weights_of(state, "generator")[0]
        if state.nimg == 45_000:
            lost.append(weight.clone())
        if 45_000 <= state.nimg < 50_000:
            weight.zero_()
        if state.nimg == 50_000:
            weight.copy_(lost[0])

    assert training(for_a_while) == [25_000, 75_000, 100_000]


def test_an_examination_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> dict[str, Tensor]:
        family = Family(architecture="dcgan", kimg=26, batch=500, latent=4, width=2)
        config = ModelConfig("dcgan", 1, 8, 4, 2)
        state = loop.build(family, config, RUNTIME, STREAMS)
        images = ((noise(400) + 1) * 127.5).to(torch.uint8)
        for _ in loop.train(Data(images), family, config, RUNTIME, STREAMS, state):
            pass
        return state.tensors()

    examined = run()
    monkeypatch.setattr(health, "INTERVAL", 10**9)
    unexamined = run()
    assert all(torch.equal(examined[name], unexamined[name]) for name in examined)


def test_halved_learning_rates_travel_with_the_checkpoint() -> None:
    family = Family(architecture="mlp", kimg=1, lr=0.1, lr_discriminator=0.4, optimizer="sgd")
    config = ModelConfig("mlp", 1, 8, 4, 4)
    state, other = (loop.build(family, config, RUNTIME, STREAMS) for _ in range(2))
    state.set_incidents([{"nimg": 5, "reason": "a"}, {"nimg": 9, "reason": "b"}])
    other.restore(state.tensors(), state.progress())
    assert other.incidents == state.incidents
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in other.optimizers.items()}
    assert rates == pytest.approx({"generator": 0.025, "discriminator": 0.1})
