"""Taking over weights: what fits, what is left, and what the moving average makes of it."""

from dataclasses import replace

import pytest
import torch

from pipeline.compute import Runtime
from pipeline.errors import ChorusError
from pipeline.models._base import ModelConfig
from pipeline.params import Family, WarmStart
from pipeline.training import loop, warm
from pipeline.training.loop import Data
from pipeline.training.state import State
from pipeline.training.streams import Streams

CPU = Runtime(torch.device("cpu"), None)
CONFIG = ModelConfig("dcgan", channels=1, size=8, latent=4, width=8)
FAMILY = Family(architecture="dcgan", kimg=1, batch=8, width=8, latent=4)


def built(config: ModelConfig = CONFIG, family: Family = FAMILY, seed: int = 0) -> State:
    return loop.build(family, config, CPU, Streams(seed, "x", 0))


def weights_of(state: State) -> dict[str, dict[str, torch.Tensor]]:
    return {name: {k: v.clone() for k, v in network.state_dict().items()} for name, network in state.networks.items()}


def test_all_weights_of_an_equal_member_are_taken() -> None:
    source, state = built(seed=1), built(seed=2)
    before = weights_of(state)
    accounts = warm.start(state, weights_of(source))
    assert [(account.network, account.left) for account in accounts] == [("generator", ()), ("discriminator", ())]
    for name, network in source.networks.items():
        for key, value in network.state_dict().items():
            assert torch.equal(state.networks[name].state_dict()[key], value)
    for key, value in source.networks["generator"].state_dict().items():
        assert torch.equal(state.average.state_dict()[key], value)
    assert any(not torch.equal(before["generator"][k], v) for k, v in weights_of(state)["generator"].items())
    assert str(accounts[0]) == f"generator {len(before['generator'])} of {len(before['generator'])} tensors"
    assert not any(optimizer.state for optimizer in state.optimizers.values())


def test_the_copies_are_the_states_own() -> None:
    source, state = weights_of(built(seed=1)), built(seed=2)
    warm.start(state, source)
    for value in source["generator"].values():
        value.zero_()
    assert any(value.any() for value in state.average.state_dict().values())
    ours, average = (module.state_dict() for module in (state.networks["generator"], state.average))
    assert all(ours[name].data_ptr() != average[name].data_ptr() for name in ours)


@pytest.mark.parametrize("reverse", [False, True])
def test_between_conditional_and_unconditional_the_layers_that_differ_are_left(reverse: bool) -> None:
    conditional = replace(CONFIG, class_shares=(0.5, 0.5))
    configs = (conditional, CONFIG) if reverse else (CONFIG, conditional)
    source, state = built(configs[0], seed=1), built(configs[1], seed=2)
    before, given = weights_of(state), weights_of(source)
    generator, discriminator = warm.start(state, given)
    assert generator.taken
    assert generator.left
    assert all(torch.equal(weights_of(state)["generator"][name], given["generator"][name]) for name in generator.taken)
    assert all(torch.equal(weights_of(state)["generator"][name], before["generator"][name]) for name in generator.left)
    embedding = [name for name in discriminator.left if "embedding" in name]
    assert bool(embedding) == (not reverse)


def test_a_source_without_a_discriminator_leaves_that_as_drawn() -> None:
    state = built(seed=2)
    before = weights_of(state)["discriminator"]
    _, discriminator = warm.start(state, {"generator": weights_of(built(seed=1))["generator"]})
    assert discriminator.taken == ()
    assert discriminator.left == tuple(before)
    assert all(torch.equal(state.networks["discriminator"].state_dict()[name], value) for name, value in before.items())


def test_weights_of_another_width_are_refused_though_a_bias_fits() -> None:
    other = weights_of(built(replace(CONFIG, width=16, latent=5)))
    own = built().networks["generator"].state_dict()
    assert any(name in own and own[name].shape == value.shape for name, value in other["generator"].items())
    with pytest.raises(ChorusError, match=r"no layer .* fits the family's generator; give the family the architecture"):
        warm.start(built(), other)


def test_generators_that_train_together_all_start_from_the_source() -> None:
    family = Family(architecture="dcgan", scheme="joint", replicas=2, kimg=1, batch=8, width=8, latent=4)
    state = built(replace(CONFIG, outputs=3), family)
    source = weights_of(built(seed=1))
    generator, discriminator = warm.start(state, source)
    assert generator.left == ()
    assert discriminator.left  # the last layer tells more of them apart
    for module in (state.networks["generator"], state.average):
        for part in module.parts:  # type: ignore[union-attr]
            assert all(torch.equal(part.state_dict()[name], value) for name, value in source["generator"].items())


def test_the_average_stays_with_weights_worth_keeping() -> None:
    """After ten steps at a long half-life it is still almost what it started from; a shortened one has forgotten it."""
    source = weights_of(built(seed=1))
    data = Data(torch.randint(0, 256, (32, 1, 8, 8), dtype=torch.uint8))
    pin = WarmStart(source="champion", version="1", content="0" * 64)
    starting = FAMILY.model_copy(update={"warm_start": pin})
    distance = {}
    for name, family in {"warm": starting, "cold": FAMILY}.items():
        state, streams = built(), Streams(0, "x", 0)
        warm.start(state, source)
        for _, _ in zip(range(10), loop.train(data, family, CONFIG, CPU, streams, state), strict=False):
            pass
        start = source["generator"]
        distance[name] = sum(float((p - start[n]).norm()) for n, p in state.average.named_parameters())
    assert distance["warm"] < 0.1 * distance["cold"]


def test_a_resumed_warm_start_ends_as_an_unbroken_one() -> None:
    data = Data(torch.randint(0, 256, (32, 1, 8, 8), dtype=torch.uint8))
    pin = WarmStart(source="champion", version="1", content="0" * 64)
    family = FAMILY.model_copy(update={"kimg": 0.08, "warm_start": pin})

    def begin(seed: int) -> State:
        state = built(family=family)
        warm.start(state, weights_of(built(seed=seed)))
        return state

    whole = begin(seed=1)
    for _ in loop.train(data, family, CONFIG, CPU, Streams(0, "x", 0), whole):
        pass
    broken = begin(seed=1)
    course = loop.train(data, family, CONFIG, CPU, Streams(0, "x", 0), broken)
    next(state for state in course if state.nimg == 40)
    resumed = begin(seed=3)  # whatever it starts from: the checkpoint says all
    resumed.restore(broken.tensors(), broken.progress())
    for _ in loop.train(data, family, CONFIG, CPU, Streams(0, "x", 0), resumed):
        pass
    assert resumed.nimg == whole.nimg == 80
    ours, theirs = resumed.tensors(), whole.tensors()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
