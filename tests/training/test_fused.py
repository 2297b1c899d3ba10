"""Replicas that train as one: each as it would alone, resumed to the same bits, and kept apart."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.compute import Runtime
from pipeline.models._base import ModelConfig
from pipeline.params import Family
from pipeline.training import checkpoints, loop
from pipeline.training.fused import can_fuse, objective_of
from pipeline.training.loop import Data
from pipeline.training.schemes.resampling import bootstrap
from pipeline.training.state import State
from pipeline.training.streams import Streams

FP32 = Runtime(torch.device("cpu"), None)
R = 3
TOGETHER = Streams(0, "fam", 0, replicas=R)
SHARES = (0.5, 0.3, 0.2)


def data(labelled: bool = False) -> Data:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (50, 1, 8, 8), dtype=torch.uint8, generator=random)
    return Data(images, torch.randint(3, (50,), generator=random) if labelled else None)


def recipe(architecture: str, conditional: bool = False, **values: Any) -> tuple[Family, ModelConfig]:
    family = Family(
        architecture=architecture,
        conditional=conditional,
        **{"kimg": 0.024, "batch": 8, "latent": 6, "width": 8, "lr": 1e-4, "replicas": R, **values},
    )
    config = ModelConfig(
        architecture,
        1,
        8,
        family.latent,
        family.width,
        class_shares=SHARES if conditional else (),
        dropout=family.dropout,
        spectral_norm=family.spectral_norm,
        penalised=family.regularisers.penalised,
    )
    return family, config


def trained(family: Family, config: ModelConfig, streams: Streams, of: Data, runtime: Runtime = FP32) -> State:
    state = loop.build(family, config, runtime, streams)
    for _ in loop.train(of, family, config, runtime, streams, state):
        pass
    return state


def kept(state: State, family: Family, config: ModelConfig, replicas: int, member: int) -> dict[str, Tensor]:
    networks = objective_of(family, config, FP32, replicas).members(state)[member]
    return {f"{role}/{name}": v for role, network in networks.items() for name, v in network.state_dict().items()}


def close(fused: dict[str, Tensor], alone: dict[str, Tensor]) -> None:
    assert fused.keys() == alone.keys()
    for name, value in alone.items():
        torch.testing.assert_close(fused[name], value, rtol=2e-3, atol=2e-4, msg=name)


CASES = [
    ("mlp", {"dropout": 0.0}),
    ("dcgan", {}),
    ("dcgan", {"conditional": True}),
    ("dcgan", {"spectral_norm": True, "loss": "hinge", "discriminator_steps": 2}),
    ("resnet", {"conditional": True}),
    ("densenet", {}),
    ("r3gan", {"loss": "relativistic", "regularisers": {"r1": 0.1, "r2": 0.1}, "conditional": True}),
    ("recurrent", {}),
    ("vae", {}),
    ("vae", {"conditional": True}),
]


@pytest.mark.parametrize(("architecture", "values"), CASES)
def test_each_replica_is_within_rounding_of_training_it_alone(architecture: str, values: dict[str, Any]) -> None:
    # Adam divides each gradient by its own size, so that rounding of a gradient near 0 would count as much as any.
    family, config = recipe(architecture, optimizer="sgd", **{**values, "lr": 1e-2})
    together = trained(family, config, TOGETHER, data(family.conditional))
    for replica, streams in enumerate(TOGETHER.parts):
        alone = trained(family, config, streams, data(family.conditional))
        close(kept(together, family, config, R, replica), kept(alone, family, config, 1, 0))
        for mine, own in zip(together.history_of(replica), alone.history, strict=True):
            assert mine == pytest.approx(own, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("architecture", ["flow", "vaegan"])
def test_the_first_replica_of_objectives_that_draw_within_a_step(architecture: str) -> None:
    """Times and codes are drawn for all at once, the first one's as it would draw them alone."""
    family, config = recipe(architecture, optimizer="sgd", lr=1e-2)
    together = trained(family, config, TOGETHER, data())
    alone = trained(family, config, TOGETHER.parts[0], data())
    close(kept(together, family, config, R, 0), kept(alone, family, config, 1, 0))


def test_profiles_are_each_replica_s_own() -> None:
    family, config = recipe("dcgan", optimizer="sgd", lr=1e-2, ema_profiles=True)
    together = trained(family, config, TOGETHER, data())
    for replica, streams in enumerate(TOGETHER.parts):
        alone = trained(family, config, streams, data())
        for width, profile in together.profiles.items():
            ours = objective_of(family, config, FP32, R).members(dataclasses.replace(together, average=profile))
            mine = dict(ours[replica]["generator"].named_parameters())
            close(mine, dict(alone.profiles[width].named_parameters()))


def test_bootstraps_stay_apart() -> None:
    family, config = recipe("mlp", dropout=0.0, optimizer="sgd", scheme="bagging")
    images = data().images
    rows = [bootstrap(len(images), streams) for streams in TOGETHER.parts]
    together = trained(family, config, TOGETHER, Data(images, rows=torch.stack(rows)))
    for replica, streams in enumerate(TOGETHER.parts):
        alone = trained(family, config, streams, Data(images, rows=rows[replica]))
        close(kept(together, family, config, R, replica), kept(alone, family, config, 1, 0))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("architecture", ["mlp", "dcgan", "vae"])
def test_going_on_from_a_checkpoint_changes_no_bit(
    architecture: str, dtype: torch.dtype | None, tmp_path: Path
) -> None:
    runtime = Runtime(torch.device("cpu"), dtype)
    family, config = recipe(architecture, kimg=0.048, ema_profiles=True)
    unbroken = trained(family, config, TOGETHER, data(), runtime)
    first = loop.build(family, config, runtime, TOGETHER)
    for _ in loop.train(data(), family, config, runtime, TOGETHER, first):
        if first.nimg == 24:
            break
    checkpoints.save_checkpoint(tmp_path / "checkpoint", first, checkpoints.environment(runtime))
    second = loop.build(family, config, runtime, TOGETHER)
    checkpoints.restore_checkpoint(tmp_path / "checkpoint", second)
    for _ in loop.train(data(), family, config, runtime, TOGETHER, second):
        pass
    ours, theirs = unbroken.tensors(), second.tensors()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert unbroken.history == second.history


BF16 = Runtime(torch.device("cpu"), torch.bfloat16)


@pytest.mark.parametrize(("architecture", "values"), [*CASES, ("flow", {}), ("vaegan", {})])
def test_in_bfloat16_replicas_stay_near_what_they_would_be_alone(architecture: str, values: dict[str, Any]) -> None:
    family, config = recipe(architecture, kimg=0.008, **values)
    together = loop.build(family, config, BF16, TOGETHER)
    of = data(family.conditional)
    next(loop.train(of, family, config, BF16, TOGETHER, together))
    alone = loop.build(family, config, BF16, TOGETHER.parts[0])
    next(loop.train(of, family, config, BF16, TOGETHER.parts[0], alone))
    for mine, own in zip(together.history_of(0), alone.history, strict=True):
        assert mine == pytest.approx(own, rel=0.05, abs=0.02)


def test_autocast_reaches_the_products() -> None:
    family, config = recipe("resnet", spectral_norm=True)
    state = loop.build(family, config, BF16, TOGETHER)
    with BF16.autocasting():
        assert state.networks["discriminator"](torch.zeros(R, 2, 1, 8, 8), None).dtype == torch.bfloat16
        assert state.networks["generator"](torch.zeros(R, 2, 6), None).dtype == torch.bfloat16
    assert state.networks["discriminator"](torch.zeros(R, 2, 1, 8, 8), None).dtype == torch.float32


def test_dropout_differs_between_replicas() -> None:
    family, config = recipe("mlp", dropout=0.5)
    state = loop.build(family, config, FP32, TOGETHER)
    judge: Any = state.networks["discriminator"]
    with torch.no_grad():
        for tensor in judge.parameters():
            tensor.copy_(tensor[0].clone().expand_as(tensor))
        logits = judge(torch.ones(R, 4, 1, 8, 8), None)
    assert not torch.equal(logits[0], logits[1])


@pytest.mark.parametrize(
    ("values", "fits"),
    [
        ({}, True),
        ({"scheme": "bagging"}, True),
        ({"replicas": 1}, False),
        ({"scheme": "joint"}, False),
        ({"discriminators": 2}, False),
    ],
)
def test_what_trains_as_one(values: dict[str, Any], fits: bool) -> None:
    assert can_fuse(recipe("dcgan", **values)[0]) == fits
