"""Generators that train together against one discriminator that tells them apart."""

from math import exp, log
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.compute import Runtime
from pipeline.layers.judges import log_odds
from pipeline.models._base import ModelConfig
from pipeline.params import Family
from pipeline.training import cost, loop
from pipeline.training.loop import Data
from pipeline.training.objectives._base import objective_for
from pipeline.training.objectives.joint import Joint
from pipeline.training.state import State
from pipeline.training.streams import Streams
from pipeline.weights import load_discriminator, load_generator, save_snapshot

CPU = torch.device("cpu")
FP32, BF16 = Runtime(CPU, None), Runtime(CPU, torch.bfloat16)
STREAMS = Streams(0, "fam", 0)


def recipe(architecture: str = "mlp", classes: int = 0, **values: Any) -> tuple[Family, ModelConfig]:
    values = {"kimg": 0.08, "batch": 8, "latent": 6, "width": 8, "replicas": 3, "scheme": "joint", **values}
    family = Family(architecture=architecture, **values)
    shares = (1 / classes,) * classes if classes else ()
    spectral = family.spectral_norm
    outputs = family.replicas + 1
    return family, ModelConfig(
        architecture, 1, 8, 6, family.width, outputs=outputs, spectral_norm=spectral, class_shares=shares
    )


def data(classes: int = 0) -> Data:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (50, 1, 8, 8), dtype=torch.uint8, generator=random)
    return Data(images, torch.randint(classes, (50,), generator=random) if classes else None)


def run(family: Family, config: ModelConfig, runtime: Runtime = FP32, steps: int | None = None) -> State:
    state = loop.build(family, config, runtime, STREAMS)
    for done, _ in enumerate(loop.train(data(config.classes), family, config, runtime, STREAMS, state), 1):
        if done == steps:
            break
    return state


def probabilities(scores: list[float]) -> list[float]:
    total = sum(map(exp, scores))
    return [exp(score) / total for score in scores]


@pytest.mark.parametrize("loss", ["minimax", "nonsaturating"])
def test_losses_by_hand(loss: str) -> None:
    """Two generators, two images of each kind; the last score is that of real images."""
    family, config = recipe(loss=loss, replicas=2, label_smoothing=0.1)
    objective = Joint(family, config, FP32)
    real = [[0.5, -1.0, 2.0], [0.0, 0.3, -0.4]]
    fake = [[1.0, 0.2, -0.5], [-2.0, 0.1, 0.9], [0.4, 0.4, 0.4], [0.0, 1.5, -1.0]]
    p_real, p_fake = [probabilities(row) for row in real], [probabilities(row) for row in fake]
    expected = sum(-0.9 * log(p[2]) - 0.1 * log(1 - p[2]) for p in p_real) / 2
    expected -= (log(p_fake[0][0]) + log(p_fake[1][0]) + log(p_fake[2][1]) + log(p_fake[3][1])) / 4
    on_real, on_fake = torch.tensor(real), torch.tensor(fake)
    assert objective.loss_d(on_real, on_fake).item() == pytest.approx(expected, rel=1e-5)

    def one(p: float) -> float:
        return log(1 - p) if loss == "minimax" else -log(p)

    mine = [(one(p_fake[i][2]) + one(p_fake[i + 1][2])) / 2 for i in (0, 2)]
    assert objective.loss_g(on_real, on_fake).tolist() == pytest.approx(mine, rel=1e-5)


def test_the_logit_of_a_softmax() -> None:
    scores = torch.randn(5, 4)
    torch.testing.assert_close(log_odds(scores).sigmoid(), scores.softmax(1)[:, -1])


@pytest.mark.parametrize("runtime", [FP32, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    ("architecture", "classes", "values"),
    [
        ("mlp", 0, {}),
        ("dcgan", 3, {"conditional": True, "regularisers": {"r1": 0.1, "r2": 0.1, "gradient_penalty": 1.0}}),
        ("resnet", 0, {"spectral_norm": True, "augment": ["color", "translation"], "discriminator_steps": 2}),
    ],
)
def test_members_are_ordinary_snapshots(
    architecture: str, classes: int, values: dict[str, Any], runtime: Runtime, tmp_path: Path
) -> None:
    family, config = recipe(architecture, classes, **values)
    state = run(family, config, runtime)
    columns = {f"{name}@{i}" for name in ("loss_g", "logit_fake") for i in range(3)} | {"loss_d", "logit_real", "nimg"}
    assert set(state.history[-1]) - {"penalty"} == columns
    assert set(state.history_of(1)[-1]) - {"penalty"} == {"nimg", "loss_g", "loss_d", "logit_real", "logit_fake"}
    members = objective_for(family, config, runtime).members(state)
    assert len(members) == 3
    y = torch.arange(5) % classes if classes else None
    drawn = []
    for i, networks in enumerate(members):
        save_snapshot(tmp_path / str(i), config, networks)
        generator, _ = load_generator(tmp_path / str(i))
        drawn.append(generator(torch.randn(5, 6, generator=torch.Generator().manual_seed(0)), y))
        assert load_discriminator(tmp_path / str(i))(drawn[-1], y).shape == (5,)
    assert not torch.allclose(drawn[0], drawn[1], atol=1e-3)


def test_a_restored_training_ends_in_the_same_bits() -> None:
    family, config = recipe("dcgan")
    unbroken, first = run(family, config), run(family, config, steps=4)
    second = loop.build(family, config, FP32, STREAMS)
    second.restore(first.tensors(), first.progress())
    for _ in loop.train(data(), family, config, FP32, STREAMS, second):
        pass
    a, b = unbroken.tensors(), second.tensors()
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert unbroken.history == second.history


def test_a_generator_learns_from_its_own_images_alone() -> None:
    """The gradient of one generator's loss reaches no other generator."""
    family, config = recipe(replicas=2)
    state = loop.build(family, config, FP32, STREAMS)
    objective: Any = objective_for(family, config, FP32)
    fake = state.networks["generator"](torch.randn(8, 12))
    scores: Tensor = objective.judged(state.networks["discriminator"], fake, None)
    objective.loss_g(scores[:8], scores)[0].backward()
    parts: Any = state.networks["generator"].parts
    assert any(parameter.grad.abs().sum() > 0 for parameter in parts[0].parameters())
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in parts[1].parameters())


MODES = 8
ANGLES = 2 * torch.pi * torch.arange(MODES) / MODES
CENTRES = 0.7 * torch.stack([ANGLES.cos(), ANGLES.sin()], 1)


def ring() -> Data:
    """Eight Gaussians on a ring, as images of one pixel and two channels."""
    random = torch.Generator().manual_seed(0)
    points = CENTRES[torch.randint(MODES, (4000,), generator=random)] + 0.02 * torch.randn(4000, 2, generator=random)
    return Data(((points + 1) * 127.5).round().to(torch.uint8)[:, :, None, None])


def shares_of_modes(generator: Any) -> Tensor:
    """How much of what a generator puts near modes is near each of them."""
    z = torch.randn(1000, generator.latent, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        distances, nearest = torch.cdist(generator(z).flatten(1), CENTRES).min(1)
    counts = torch.bincount(nearest[distances < 0.15], minlength=MODES).float()
    return counts / counts.sum().clamp(min=1)


def on_the_ring(scheme: str, seed: int) -> Tensor:
    """Train four members of 20 kimg each; return their shares of the modes, 4×8."""
    values: dict[str, Any] = {"kimg": 20, "batch": 64, "latent": 4, "width": 4, "replicas": 4, "scheme": scheme}
    family = Family(architecture="mlp", lr=1e-3, lr_discriminator=4e-3, ema_halflife_kimg=1, **values)
    config = ModelConfig("mlp", 2, 1, 4, 4, dropout=0.0, outputs=5 if scheme == "joint" else 1)
    members = []
    for replica in range(1 if scheme == "joint" else 4):
        streams = Streams(seed, "ring", replica)
        state = loop.build(family, config, FP32, streams)
        for _ in loop.train(ring(), family, config, FP32, streams, state):
            pass
        members += objective_for(family, config, FP32).members(state)
    return torch.stack([shares_of_modes(networks["generator"]) for networks in members])


def test_members_of_a_joint_training_share_the_modes_out_among_them() -> None:
    """Trained as long, independent members all cover the same modes and joint ones each its own, all of them together.

    Total variation between members: 0 where they cover modes alike, 1 where no mode is shared.
    """
    apart = {}
    for scheme in ("independent", "joint"):
        shares = on_the_ring(scheme, seed=0)
        apart[scheme] = float(torch.pdist(shares, 1).mean() / 2)
    assert apart["joint"] > 0.8 > 0.5 > apart["independent"]
    assert int((shares.mean(0) > 0.02).sum()) == MODES
    assert ((shares > 0.05).sum(1) <= MODES // 2).all()


def test_the_cost_of_a_step_is_shared() -> None:
    """A member of three costs less than one alone: they share the discriminator's passes over real images."""
    family, config = recipe()
    alone = family.model_copy(update={"scheme": "independent"})
    single = cost.flops_per_image(alone, ModelConfig("mlp", 1, 8, 6, 8))
    assert 0.5 * single < cost.flops_per_image(family, config) < single
