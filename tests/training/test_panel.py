"""A generator against several discriminators."""

import dataclasses
from math import exp
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.compute import Runtime
from pipeline.models._base import ModelConfig, build_discriminator
from pipeline.params import Family
from pipeline.training import loop
from pipeline.training.loop import Data
from pipeline.training.objectives._base import objective_for
from pipeline.training.objectives.panel import PanelOfDiscriminators, Sharpness
from pipeline.training.state import State
from pipeline.training.streams import Streams
from pipeline.weights import load_discriminator, save_snapshot

CPU = torch.device("cpu")
FP32, BF16 = Runtime(CPU, None), Runtime(CPU, torch.bfloat16)
STREAMS = Streams(0, "fam", 0)
SPREAD = torch.tensor([0.5, 2.0, 1.0])


def recipe(architecture: str = "mlp", **values: Any) -> tuple[Family, ModelConfig]:
    values = {"kimg": 0.08, "batch": 8, "latent": 6, "width": 8, "discriminators": 3, **values}
    family = Family(architecture=architecture, **values)
    shares = (0.5, 0.5) if family.conditional else ()
    config = ModelConfig(architecture, 1, 8, 6, 8, class_shares=shares, dropout=family.dropout)
    return family, dataclasses.replace(config, spectral_norm=family.spectral_norm, discriminators=family.discriminators)


def data(config: ModelConfig) -> Data:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (50, 1, 8, 8), dtype=torch.uint8, generator=random)
    return Data(images, torch.randint(2, (50,), generator=random) if config.classes else None)


def run(family: Family, config: ModelConfig, runtime: Runtime = FP32, steps: int | None = None) -> State:
    state = loop.build(family, config, runtime, STREAMS)
    for done, _ in enumerate(loop.train(data(config), family, config, runtime, STREAMS, state), 1):
        if done == steps:
            break
    return state


def panel_of(**values: Any) -> tuple[PanelOfDiscriminators, State]:
    family, config = recipe(**values)
    return PanelOfDiscriminators(family, config, FP32), loop.build(family, config, FP32, STREAMS)


def test_weights_by_hand() -> None:
    total = sum(exp(0.7 * loss) for loss in SPREAD.tolist())
    sharpness = Sharpness()
    with torch.no_grad():
        sharpness.log.copy_(torch.tensor(0.7).log())
    expected = [exp(0.7 * loss) / total for loss in SPREAD.tolist()]
    assert sharpness(SPREAD).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_mean_counts_all_alike() -> None:
    panel, state = panel_of()
    losses = SPREAD.clone().requires_grad_()
    aim = panel.aim(state, losses)
    aim.backward()
    assert aim.item() == pytest.approx(3.5 / 3)
    assert losses.grad is not None
    assert losses.grad.tolist() == pytest.approx([1 / 3] * 3)


def test_the_harshest_discriminator_counts_most_and_none_counts_below_zero() -> None:
    panel, state = panel_of(discriminator_weights="softmax")
    losses = (10 * SPREAD).requires_grad_()  # at such a distance the derivative through the weights turns negative
    panel.aim(state, losses).backward()
    assert losses.grad is not None
    torch.testing.assert_close(losses.grad, losses.detach().softmax(0))


@pytest.mark.parametrize("spread", [0.0, 0.01, 1.0])
def test_the_sharpness_has_the_variance_less_a_reward_as_its_gradient(spread: float) -> None:
    """Equation 7: d/dλ (Σ wᵢVᵢ - cλ) = Var_w(V) - c; by the logarithm of λ, which is 1 here, the same."""
    panel, state = panel_of(discriminator_weights="softmax")
    losses = 1 + spread * SPREAD
    panel.aim(state, losses).backward()
    weights = losses.softmax(0)
    variance = (weights * (losses - (weights * losses).sum()).square()).sum()
    sharpness: Any = state.networks["sharpness"]
    assert sharpness.log.grad.item() == pytest.approx(variance.item() - 0.001, abs=1e-6)


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("mlp", {"dropout": 0.3}),
    ("mlp", {"loss": "relativistic", "discriminator_steps": 2}),
    ("dcgan", {"loss": "hinge", "spectral_norm": True, "augment": ["color", "cutout"]}),
    ("dcgan", {"regularisers": {"r1": 0.1, "r2": 0.1, "gradient_penalty": 1.0, "every": 2}, "conditional": True}),
    ("resnet", {"loss": "wasserstein", "regularisers": {"weight_clip": 0.05}}),
]


@pytest.mark.parametrize("runtime", [FP32, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("weights", ["mean", "softmax"])
@pytest.mark.parametrize(("architecture", "values"), VARIANTS)
def test_a_panel_trains_and_its_snapshot_judges_by_the_mean_logit(
    architecture: str, values: dict[str, Any], weights: str, runtime: Runtime, tmp_path: Path
) -> None:
    family, config = recipe(architecture, discriminator_weights=weights, **values)
    state = run(family, config, runtime)
    row = state.history[-1]
    assert ("penalty" in row) == ("r1" in values.get("regularisers", {}))
    assert ("sharpness" in row) == (weights == "softmax")
    if weights == "softmax":
        assert sum(row[f"weight_{i}"] for i in (1, 2, 3)) == pytest.approx(1, abs=1e-5)
    (networks,) = objective_for(family, config, runtime).members(state)
    save_snapshot(tmp_path, config, networks)
    images, y = torch.randn(5, 1, 8, 8), torch.arange(5) % 2 if config.classes else None
    panel: Any = load_discriminator(tmp_path)
    each: Tensor = panel.each(images, y)
    assert each.shape == (3, 5)
    assert not torch.allclose(each[0], each[1])
    torch.testing.assert_close(panel(images, y), each.mean(0))


def test_each_discriminator_learns_as_if_it_were_alone() -> None:
    """One update by SGD of a panel's first discriminator is that of the same discriminator alone."""
    family, config = recipe("dcgan", optimizer="sgd", lr=0.1)
    alone, single = recipe("dcgan", optimizer="sgd", lr=0.1, discriminators=1)
    several, one = loop.build(family, config, FP32, STREAMS), loop.build(alone, single, FP32, STREAMS)
    one.networks["generator"].load_state_dict(several.networks["generator"].state_dict())
    panel: Any = several.networks["discriminator"]
    one.networks["discriminator"].load_state_dict(panel.judges[0].state_dict())
    for recipe_, config_, state in ((family, config, several), (alone, single, one)):
        next(loop.train(data(config), recipe_, config_, FP32, STREAMS, state))
    for mine, other in zip(panel.judges[0].parameters(), one.networks["discriminator"].parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_a_restored_panel_ends_in_the_same_bits() -> None:
    family, config = recipe("mlp", discriminator_weights="softmax")
    unbroken, first = run(family, config), run(family, config, steps=4)
    second = loop.build(family, config, FP32, STREAMS)
    second.restore(first.tensors(), first.progress())
    for _ in loop.train(data(config), family, config, FP32, STREAMS, second):
        pass
    a, b = unbroken.tensors(), second.tensors()
    assert any(name.startswith("sharpness") for name in a)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert unbroken.history == second.history


def test_the_judges_start_apart() -> None:
    panel: Any = build_discriminator(recipe("resnet")[1])
    first, second = (list(judge.parameters()) for judge in list(panel.judges)[:2])
    assert not torch.equal(first[0], second[0])
