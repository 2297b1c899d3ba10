"""The loop: budgets, rows, snapshots, and that stopping and going on changes no bit."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.compute import Runtime
from pipeline.errors import ChorusError
from pipeline.fusion.samplers import CandidateSampler, draw
from pipeline.models._base import ModelConfig
from pipeline.params import Family
from pipeline.training import checkpoints, loop
from pipeline.training.ema import PROFILES, exponent
from pipeline.training.loop import Data
from pipeline.training.state import State
from pipeline.training.streams import Streams

CPU = torch.device("cpu")
FP32, BF16 = Runtime(CPU, None), Runtime(CPU, torch.bfloat16)
STREAMS = Streams(0, "fam", 0)


def images(n: int = 50) -> Tensor:
    return torch.randint(256, (n, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def recipe(architecture: str, **values: Any) -> tuple[Family, ModelConfig]:
    family = Family(architecture=architecture, **{"kimg": 0.08, "batch": 8, "latent": 6, "width": 8, **values})
    return family, ModelConfig(architecture, 1, 8, family.latent, family.width)


def run(family: Family, config: ModelConfig, runtime: Runtime = FP32, data: Tensor | None = None) -> State:
    state = loop.build(family, config, runtime, STREAMS)
    for _ in loop.train(Data(images() if data is None else data), family, config, runtime, STREAMS, state):
        pass
    return state


def same(one: State, other: State) -> bool:
    a, b = one.tensors(), other.tensors()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a) and one.history == other.history


@pytest.mark.parametrize(
    ("kimg", "batch", "snapshots", "total", "at"),
    [
        (1, 100, 2, 10, {5, 10}),
        (1, 300, 1, 4, {4}),
        (0.01, 64, 1, 1, {1}),  # a budget below one batch takes one
        (0.128, 64, 5, 2, {1, 2}),  # fewer steps than snapshots
    ],
)
def test_schedule(kimg: float, batch: int, snapshots: int, total: int, at: set[int]) -> None:
    family, _ = recipe("mlp", kimg=kimg, batch=batch, snapshots=snapshots)
    assert loop.schedule(family) == (total, at)


def test_yields_every_step_and_ends_at_the_budget() -> None:
    family, config = recipe("mlp", kimg=0.4, snapshots=3)
    state = loop.build(family, config, FP32, STREAMS)
    seen = [(s.nimg, s.snapshot) for s in loop.train(Data(images()), family, config, FP32, STREAMS, state)]
    assert [nimg for nimg, _ in seen] == list(range(8, 401, 8))
    assert [nimg for nimg, snapshot in seen if snapshot] == [136, 264, 400]
    assert state.history[-1]["nimg"] == 400
    assert set(state.history[0]) == {"nimg", "loss_g", "loss_d", "logit_real", "logit_fake"}


@pytest.mark.parametrize("architecture", ["mlp", "dcgan"])
def test_a_snapshot_is_what_a_shorter_training_ends_as(architecture: str) -> None:
    """Neither the learning rate nor the average knows the end."""
    (longer, config), (shorter, _) = recipe(architecture, snapshots=5), recipe(architecture, kimg=0.032)
    state = loop.build(longer, config, FP32, STREAMS)
    for _ in loop.train(Data(images()), longer, config, FP32, STREAMS, state):
        if state.snapshot and state.nimg == 32:
            break
    own, ended = state.tensors(), run(shorter, config).tensors()
    assert all(torch.equal(value, ended[name]) for name, value in own.items() if name != "sums")


def test_a_long_history_has_about_a_hundred_rows() -> None:
    family, config = recipe("mlp", kimg=2.5, batch=10)
    assert 100 <= len(run(family, config).history) <= 130


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("runtime", [FP32, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("architecture", ["mlp", "dcgan", "vae"])
def test_going_on_from_a_checkpoint_changes_no_bit(
    architecture: str, runtime: Runtime, optimizer: str, tmp_path: Path
) -> None:
    family, config = recipe(architecture, optimizer=optimizer, snapshots=2, ema_profiles=True)
    unbroken = run(family, config, runtime)

    first = loop.build(family, config, runtime, STREAMS)
    for _ in loop.train(Data(images()), family, config, runtime, STREAMS, first):
        if first.nimg == 40:
            break
    path = tmp_path / "checkpoint.safetensors"
    surroundings = checkpoints.environment(runtime)
    checkpoints.save_checkpoint(path, first, surroundings)
    torch.manual_seed(12345)  # nothing may hang on the global stream

    second = loop.build(family, config, runtime, STREAMS)
    assert checkpoints.restore_checkpoint(path, second) == surroundings
    assert same(first, second)
    for _ in loop.train(Data(images()), family, config, runtime, STREAMS, second):
        pass
    assert same(unbroken, second)


def test_profiles_follow_the_generator_and_change_nothing_else() -> None:
    family, config = recipe("dcgan", ema_profiles=True)
    with_profiles, without = run(family, config), run(recipe("dcgan")[0], config)
    assert list(with_profiles.profiles) == list(PROFILES)
    assert not without.profiles
    own = {name: value for name, value in with_profiles.tensors().items() if not name.startswith("profile")}
    assert own.keys() == without.tensors().keys()
    assert all(torch.equal(value, own[name]) for name, value in without.tensors().items())
    # By hand: the average of the live weights after each step, by the profile's share of that step.
    state, walk = loop.build(family, config, FP32, STREAMS), []
    for _ in loop.train(Data(images()), family, config, FP32, STREAMS, state):
        walk.append([value.detach().clone() for value in state.networks["generator"].parameters()])
    for width, profile in state.profiles.items():
        shares = (torch.arange(len(walk) + 1) / len(walk)).double().pow(exponent(width) + 1).diff()
        for index, value in enumerate(profile.parameters()):
            mean = sum(share * weights[index].double() for share, weights in zip(shares, walk, strict=True))
            torch.testing.assert_close(value.double(), mean, rtol=1e-5, atol=1e-7)


def test_replicas_differ_and_runs_repeat() -> None:
    family, config = recipe("dcgan")
    assert same(run(family, config), run(family, config))
    other = loop.build(family, config, FP32, Streams(0, "fam", 1))
    assert not same(loop.build(family, config, FP32, STREAMS), other)


def test_fewer_images_than_a_batch_come_several_times() -> None:
    family, config = recipe("mlp")
    assert run(family, config, data=images(3)).nimg == 80


def test_no_images() -> None:
    family, config = recipe("mlp")
    with pytest.raises(ChorusError, match="train split is empty"):
        run(family, config, data=images(0))


def test_a_loss_that_is_no_number_names_the_member_and_the_remedy() -> None:
    family, config = recipe("mlp", lr=1e30, kimg=1)
    with pytest.raises(ChorusError, match=r"fam/r0.*lower families\.fam\.lr"):
        run(family, config)


def test_the_discriminator_step_leaves_the_generator_alone_and_the_other_way_round() -> None:
    frozen, config = recipe("mlp", lr=1e-30, lr_discriminator=0.01)
    start = loop.build(frozen, config, FP32, STREAMS).tensors()
    end = run(frozen, config).tensors()
    moved = {name for name in start if not torch.equal(start[name], end[name]) and name.endswith("weight")}
    assert moved == {name for name in start if name.startswith("discriminator/") and name.endswith("weight")}


def test_a_vae_learns_a_sharp_decoder() -> None:
    """σ falls well below the data's own deviation on images of two levels that one number describes."""
    data = torch.tensor([40, 210], dtype=torch.uint8).repeat(32)[:, None, None, None].expand(64, 1, 8, 8).contiguous()
    family, config = recipe("vae", kimg=5, batch=32, lr=2e-3)
    state = run(family, config, data=data)
    assert state.history[-1]["sigma"] < 0.15 < (data.float() / 127.5).std()
    assert state.history[-1]["loss"] < state.history[0]["loss"]


def test_a_vae_that_samples_noise_trains_and_is_drawn_from() -> None:
    family, config = recipe("vae", sample_noise=True)
    noisy = dataclasses.replace(config, sample_noise=True)
    state = run(family, noisy)
    assert state.snapshot
    drawn = draw(CandidateSampler(state.average), 20, seed=0)
    assert drawn.shape == (20, 1, 8, 8)
    plain = draw(CandidateSampler(run(recipe("vae")[0], config).average), 20, seed=0)
    # Noise of the decoder's σ lies on the images, so neighbouring pixels differ more.
    assert drawn.float().diff(dim=3).abs().mean() > plain.float().diff(dim=3).abs().mean()
