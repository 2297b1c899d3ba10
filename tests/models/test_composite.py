"""Composite generators: mixtures choose by the first number of the latent, cascades begin as their first part."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pipeline.models
from pipeline.fusion.samplers import CandidateSampler, draw
from pipeline.layers.operations import operations
from pipeline.models._base import ModelConfig, build_discriminator, build_generator
from pipeline.params import registered
from pipeline.weights import load_discriminator, load_generator, save_snapshot

DCGAN = ModelConfig("dcgan", 1, 8, 6, 4)
MLP = ModelConfig("mlp", 1, 8, 9, 4)
MIXTURE = ModelConfig("mixture", 1, 8, 10, 4, parts=(DCGAN, MLP), weights=(0.25, 0.75))
REFINER = replace(DCGAN, architecture="refiner")
CASCADE = replace(DCGAN, architecture="cascade", parts=(DCGAN, REFINER, REFINER))
STACK = replace(DCGAN, architecture="stack", latent=9, parts=(DCGAN, MLP))
SHARES = (0.25, 0.75)


def built(config: ModelConfig) -> Any:
    torch.manual_seed(0)
    return build_generator(config).eval()


def latents(n: int, length: int) -> Tensor:
    return torch.randn(n, length, generator=torch.Generator().manual_seed(1))


def test_params_cannot_ask_for_composites() -> None:
    assert not {"mixture", "cascade", "stack"} & set(registered(pipeline.models))


@pytest.mark.parametrize("config", [MIXTURE, CASCADE, STACK], ids=lambda config: config.architecture)
def test_a_composite_is_an_ordinary_snapshot(config: ModelConfig, tmp_path: Path) -> None:
    generator = built(config)
    assert generator.latent == config.latent
    save_snapshot(tmp_path, config, {"generator": generator})
    loaded, read = load_generator(tmp_path)
    assert read == config
    assert torch.equal(draw(CandidateSampler(loaded), 300, seed=0), draw(CandidateSampler(generator), 300, seed=0))


def test_a_mixture_draws_its_parts_as_often_as_their_weights_say() -> None:
    generator = built(MIXTURE)
    z = latents(4000, 10)
    with torch.no_grad():
        images = generator(z)
        from_first, from_second = generator.parts[0](z[:, 1:7]), generator.parts[1](z[:, 1:])
    first, second = ((images - part).abs().amax((1, 2, 3)) < 1e-5 for part in (from_first, from_second))
    assert bool((first ^ second).all())
    assert first.float().mean() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(first, z[:, 0] < -0.6744898)  # the normal distribution's lower quartile


def test_a_mixtures_image_depends_on_its_own_latent_alone() -> None:
    generator = built(MIXTURE)
    z = latents(50, 10)
    with torch.no_grad():
        torch.testing.assert_close(torch.cat([generator(piece) for piece in z.split(7)]), generator(z))


def test_a_mixture_runs_only_the_parts_that_are_chosen() -> None:
    generator = built(MIXTURE)
    runs: list[int] = []
    generator.parts[0].register_forward_hook(lambda _, inputs, __: runs.append(len(inputs[0])))
    z = latents(20, 10)
    z[:, 0] = z[:, 0].abs()
    generator(z)
    assert runs == []
    z[:3, 0] = -2
    generator(z)
    assert runs == [3]


def test_mixtures_nest_and_count_the_passes_of_their_parts() -> None:
    nested = replace(MIXTURE, latent=11, parts=(MIXTURE, CASCADE), weights=(0.5, 0.5))
    generator = built(nested)
    assert generator.latent == 11
    assert generator.passes == pytest.approx(0.5 * 1 + 0.5 * 3)
    assert generator(latents(30, 11)).shape == (30, 1, 8, 8)
    assert ModelConfig.from_json(nested.to_json()) == nested


def test_labels_reach_the_parts_with_their_images() -> None:
    generator = built(MIXTURE)
    seen: list[tuple[Tensor, Tensor]] = []
    for part in generator.parts:
        part.register_forward_hook(lambda _, inputs, __: seen.append(inputs))
    z = latents(40, 10)
    labels = torch.arange(40)
    generator(z, labels)
    for own, y in seen:
        assert torch.equal(own, z[y, 1 : 1 + own.shape[1]])
    assert sorted(torch.cat([y for _, y in seen]).tolist()) == labels.tolist()


def test_a_cascade_begins_as_its_first_part() -> None:
    generator = built(CASCADE)
    z = latents(5, 6)
    assert torch.equal(generator(z), generator.first(z))
    assert generator.passes == 3


def test_only_a_cascades_last_refiner_is_trained() -> None:
    generator = built(CASCADE).train()
    with torch.no_grad():
        generator.refiners[0].up.weight.normal_()
    first_modes = {module.training for module in generator.first.modules()}
    assert first_modes == {False}
    assert generator.refiners[1].training
    assert not generator.refiners[0].training
    generator(latents(5, 6)).square().sum().backward()
    moved = {name.split(".")[1] for name, parameter in generator.named_parameters() if parameter.grad is not None}
    assert moved == {"1"}


def test_a_conditional_refiner_corrects_by_class() -> None:
    config = replace(REFINER, class_shares=(0.5, 0.5))
    generator = built(replace(CASCADE, class_shares=(0.5, 0.5), parts=(DCGAN, config)))
    refiner = generator.refiners[0]
    with torch.no_grad():
        refiner.up.weight.normal_(0, 0.1)
        refiner.classes.weight.normal_()
    z = latents(1, 6).expand(2, 6)
    one, other = generator(z, torch.tensor([0, 1]))
    assert not torch.equal(one, other)
    assert generator(z, torch.tensor([0, 1])).abs().max() <= 1


def test_a_cascades_discriminator_is_that_of_its_first_part(tmp_path: Path) -> None:
    discriminator = build_discriminator(CASCADE)
    plain = build_discriminator(DCGAN)
    assert discriminator is not None
    assert plain is not None
    assert discriminator.state_dict().keys() == plain.state_dict().keys()
    save_snapshot(tmp_path, CASCADE, {"generator": built(CASCADE), "discriminator": discriminator})
    assert load_discriminator(tmp_path)(torch.zeros(3, 1, 8, 8)).shape == (3,)


def test_a_stack_begins_as_its_first_part_and_costs_all_of_them() -> None:
    generator = built(STACK)
    z = latents(5, 9)
    first, second = generator.parts[0](z[:, :6]), generator.parts[1](z)
    torch.testing.assert_close(generator(z), (50 * first + second) / 51)
    drawing = operations(lambda: (generator.parts[0](z[:, :6]), generator.parts[1](z)))
    combining = operations(lambda: generator.combiner(torch.stack([first, second], 1)))
    assert generator.passes == pytest.approx(2 * (1 + combining / drawing))
    nested = built(replace(STACK, latent=10, parts=(CASCADE, MIXTURE)))
    assert nested.passes > sum(part.passes for part in nested.parts) == 3 + 1


def test_a_stacks_gates_add_up_to_one_at_each_pixel() -> None:
    combiner = built(STACK).combiner
    with torch.no_grad():
        combiner.up.weight[:, :2].normal_()  # the gates; the correction stays zero
        combiner.down.weight.normal_()
    images = torch.stack([latents(6, 64).tanh().view(6, 1, 8, 8), 0.3 * latents(6, 64).tanh().view(6, 1, 8, 8)], 1)
    combined = combiner(images)
    assert not torch.allclose(combined, images[:, 0], atol=0.01)
    assert (combined <= images.amax(1) + 1e-6).all()
    assert (combined >= images.amin(1) - 1e-6).all()


def test_only_a_stacks_combiner_is_trained() -> None:
    generator = built(STACK).train()
    assert {module.training for module in generator.parts.modules()} == {False}
    with torch.no_grad():
        generator.combiner.up.weight.normal_()
    generator(latents(5, 9)).square().sum().backward()
    moved = {name.split(".")[0] for name, parameter in generator.named_parameters() if parameter.grad is not None}
    assert moved == {"combiner"}


def test_a_stack_of_conditional_parts_is_conditional_and_of_some_is_not() -> None:
    known = replace(MLP, class_shares=SHARES)
    both = built(replace(STACK, latent=9, class_shares=SHARES, parts=(known, known)))
    assert (both.latent, both.class_shares) == (9, SHARES)
    z = latents(2, 9)[:1].expand(2, 9)
    one, other = both(z, torch.tensor([0, 1]))
    assert not torch.equal(one, other)
    mixed = built(replace(STACK, latent=10, parts=(known, MLP)))
    assert (mixed.latent, mixed.class_shares) == (10, ())
    seen: list[Tensor] = []
    mixed.parts[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[1]))
    z = latents(4000, 10)
    mixed(z)
    assert seen[0].float().mean() == pytest.approx(0.75, abs=0.03)
    assert torch.equal(seen[0], (z[:, -1] >= -0.6744898).long())  # the normal distribution's lower quartile
