import pytest
import torch
from torch import nn

import pipeline.models
from pipeline.fusion.critic import FusedCritic, Reading
from pipeline.fusion.refine import RefineSampler
from pipeline.fusion.samplers import CandidateSampler, draw
from pipeline.models._base import ModelConfig, build_generator
from pipeline.params import registered

READING = Reading(slope=20.0, intercept=1.0)


class Plain(nn.Module):
    """A generator whose image has everywhere a tenth of the latent's first number."""

    latent = 3

    def forward(self, z, y=None):
        return (0.1 * z[:, :1]).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


class ByClass(Plain):
    class_shares = (0.5, 0.5)

    def forward(self, z, y):
        return super().forward(z) + 0.5 * (2 * y - 1)[:, None, None, None]


class Brightness(nn.Module):
    def forward(self, images, y=None):
        return images.mean((1, 2, 3))


def sampler(network=None, steps=5, step_size=0.1):
    critic = FusedCritic([Brightness()], [READING])
    return RefineSampler(CandidateSampler(network or Plain()), critic, steps, step_size)


def test_latents_walk_to_where_the_critic_finds_images_more_real():
    """With d = 20·0.1·z₁ + 1 the energy is that of a normal distribution around (2, 0, 0), of variance 1.

    Steps of ε = 0.3 leave its variance at 1 / (1 - ε/4): the fixed point of v ← (1 - ε/2)² v + ε.
    """
    walk = sampler(steps=60, step_size=0.3)
    values = walk.at(torch.arange(4000), seed=0)[:, 0, 0, 0] / 0.1
    assert values.mean().item() == pytest.approx(2, abs=0.06)
    assert values.var().item() == pytest.approx(1 / (1 - 0.3 / 4), abs=0.08)


def test_no_steps_are_the_generator_itself():
    assert torch.equal(draw(sampler(steps=0), 300, seed=4), draw(CandidateSampler(Plain()), 300, seed=4))


class Broken(nn.Module):
    """A discriminator whose gradient is no number at dark images."""

    def forward(self, images, y=None):
        return images.mean((1, 2, 3)).sqrt()


def test_latents_stay_where_there_is_no_gradient():
    walk = RefineSampler(CandidateSampler(Plain()), FusedCritic([Broken()], [READING]), 1, 0.1)
    rows = torch.arange(200)
    walked, plain = walk.at(rows, 0), CandidateSampler(Plain()).at(rows, 0)
    assert walked.isfinite().all()
    dark = plain[:, 0, 0, 0] < 0
    assert torch.equal(walked[dark], plain[dark])
    assert not torch.equal(walked[~dark], plain[~dark])


def test_an_image_depends_on_the_seed_and_its_number_alone():
    walk = sampler()
    images = draw(walk, 600, seed=3)
    assert torch.equal(images, draw(walk, 600, seed=3))
    assert torch.equal(images[:20], draw(walk, 20, seed=3))
    assert not torch.equal(images, draw(walk, 600, seed=4))
    rows = torch.tensor([5, 270, 599])
    torch.testing.assert_close(walk.at(rows, 3), walk.at(torch.arange(600), 3)[rows])


def test_it_walks_inside_a_sampler_that_takes_no_gradients():
    walk = sampler()
    with torch.inference_mode():
        inside = draw(walk, 30, seed=0)
    assert torch.equal(inside, draw(walk, 30, seed=0))


def test_asked_classes_are_delivered():
    labels = torch.arange(300) % 2
    images = draw(sampler(ByClass(), steps=2, step_size=0.01), 300, seed=0, labels=labels)
    assert torch.equal(images[:, 0, 0, 0] > 127, labels == 1)
    assert sampler(ByClass()).classes == 2


def test_the_cost_counts_a_step_as_a_pass_forward_and_one_back_of_generator_and_critics():
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(3, 4), nn.Unflatten(1, (1, 2, 2))).requires_grad_(False)
    generator.latent = 3
    critics = [nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (-1, 4)), nn.Linear(4, 1), nn.Flatten(0)) for _ in range(2)]
    for critic in critics:
        critic.requires_grad_(False)
    walk = RefineSampler(CandidateSampler(generator), FusedCritic(critics, [READING, READING]), 5, 0.1)
    # The generator has 12 weights, a critic 4.
    assert walk.cost == pytest.approx(1 + 5 * 2 * (12 + 2 * 4) / 12)


@pytest.mark.parametrize("name", [*registered(pipeline.models), "cascade", "mixture", "stack"])
def test_every_architectures_images_follow_their_latents(name):
    """The walk needs a gradient at every latent."""
    part = ModelConfig("mlp", 1, 8, 4, 4)
    parts = (part, ModelConfig("refiner", 1, 8, 4, 4)) if name == "cascade" else (part, part)
    composite = {"parts": parts, "weights": (0.5, 0.5)} if name in ("cascade", "mixture", "stack") else {}
    config = ModelConfig(name, 1, 8, 5 if name == "mixture" else 4, 4, **composite)
    torch.manual_seed(0)
    network = build_generator(config).eval().requires_grad_(False)
    walk = sampler(network, steps=1)
    z = torch.randn(3, walk.source.latent)
    critic_pulls = walk.gradient(z, None) - z
    assert critic_pulls.abs().sum(1).min() > 0
