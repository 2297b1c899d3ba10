"""Batches in parts: the same updates as by whole batches, and a training that runs out of memory goes on with them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.compute import Runtime
from pipeline.models._base import ModelConfig
from pipeline.params import Family
from pipeline.training import loop
from pipeline.training.accumulation import is_out_of_memory, parts_of, take_step
from pipeline.training.fused import objective_of
from pipeline.training.objectives._base import Batch, Objective
from pipeline.training.state import State
from pipeline.training.streams import Streams

FP32 = Runtime(torch.device("cpu"), None)
BATCH = 10  # not divisible by the parts, 4


def start(architecture: str = "mlp", together: int = 1, **values: Any) -> tuple[Objective, State]:
    family = Family(architecture=architecture, kimg=1, batch=BATCH, latent=6, width=8, **values)
    config = ModelConfig(
        architecture,
        1,
        8,
        6,
        8,
        dropout=family.dropout,
        penalised=family.regularisers.penalised,
        discriminators=family.discriminators,
        outputs=family.replicas + 1 if family.scheme == "joint" else 1,
    )
    streams = Streams(0, "fam", 0, together)
    return objective_of(family, config, FP32, together), loop.build(family, config, FP32, streams)


def batch(objective: Objective, step: int, *replicas: int) -> Batch:
    random = torch.Generator().manual_seed(step)
    real = torch.rand(*replicas, BATCH, 1, 8, 8, generator=random) * 2 - 1
    return Batch(real, torch.randn(*replicas, BATCH, objective.noise, generator=random), None, step)


def run(objective: Objective, state: State, *replicas: int) -> tuple[Tensor, Tensor]:
    """Take four steps; return the numbers of each and all weights at the end."""
    numbers = [take_step(objective, state, batch(objective, step, *replicas), seed=step) for step in range(4)]
    weights = [value.flatten() for network in state.networks.values() for value in network.parameters()]
    return torch.stack(numbers), torch.cat(weights).detach()


# Without dropout the MLP has neither batch statistics nor random layers: whole batches and parts are the same. The
# rate is small and the optimiser plain descent, which leaves rounding as small as it is; Adam divides by it.
PLAIN: dict[str, Any] = {"dropout": 0.0, "optimizer": "sgd", "momentum": 0.5, "lr": 0.01}


@pytest.mark.parametrize(
    "recipe",
    [
        {"loss": "hinge"},
        {"loss": "relativistic", "regularisers": {"r1": 1.0, "r2": 0.5, "every": 2}},
        {"loss": "wasserstein", "regularisers": {"weight_clip": 0.05}, "discriminator_steps": 2},
        {"scheme": "joint", "replicas": 2},
        {"discriminators": 2},
    ],
)
def test_parts_are_the_same_as_whole_batches(recipe: dict[str, Any]) -> None:
    objective, whole = start(**PLAIN, **recipe)
    _, parted = start(**PLAIN, **recipe)
    parted.micro = 4
    for one, other in zip(run(objective, whole), run(objective, parted), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_replicas_that_train_as_one_are_parted_alike() -> None:
    recipe = {"loss": "hinge", "replicas": 2, **PLAIN}
    objective, whole = start("mlp", 2, **recipe)
    _, parted = start("mlp", 2, **recipe)
    parted.micro = 4
    for one, other in zip(run(objective, whole, 2), run(objective, parted, 2), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["vae", "vaegan", "flow", "dcgan"])
def test_objectives_with_batch_statistics_train_in_parts_too(architecture: str) -> None:
    objective, state = start(architecture)
    before = {name: [p.clone() for p in network.parameters()] for name, network in state.networks.items()}
    state.micro = 4
    numbers, weights = run(objective, state)
    assert numbers.isfinite().all()
    assert weights.isfinite().all()
    for name, network in state.networks.items():
        assert any(not torch.equal(a, b) for a, b in zip(before[name], network.parameters(), strict=True)), name
        assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("architecture", ["mlp", "vaegan"])
def test_a_step_that_ran_out_of_memory_can_be_taken_again(architecture: str) -> None:
    """Wherever it did: here in the generator's update, at the last network that its gradients come to."""
    objective, state = start(architecture)
    given = batch(objective, 0)

    def out_of_memory(gradient: Tensor) -> None:
        torch.empty(10**15)

    handle = next(state.networks["generator"].parameters()).register_hook(out_of_memory)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        take_step(objective, state, given, seed=0)
    handle.remove()
    for optimizer in state.optimizers.values():
        optimizer.zero_grad()
    state.micro = 4
    assert take_step(objective, state, given, seed=0).isfinite().all()


def test_parts_are_even_and_whole() -> None:
    objective, _ = start()
    given = batch(objective, 0)
    parts = list(parts_of(given, 4))
    assert [len(part.real) for part, _ in parts] == [4, 3, 3]
    assert sum(share for _, share in parts) == pytest.approx(1)
    assert torch.equal(torch.cat([part.z for part, _ in parts]), given.z)


def test_failed_allocations_are_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError())
    assert not is_out_of_memory(RuntimeError("shapes differ"))
