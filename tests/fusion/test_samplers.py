import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.errors import ChorusError
from pipeline.fusion.samplers import (
    AverageSampler,
    CandidateSampler,
    MixtureSampler,
    VoteSampler,
    build_sampler,
    draw,
    networks_of,
    to_uint8,
)


class Linear(nn.Module):
    """A generator of 1×2×2 images around a level, so that the images tell which generator made them."""

    def __init__(self, level, latent=3, spread=0.05):
        super().__init__()
        self.latent, self.level, self.spread = latent, level, spread

    def forward(self, z, y=None):
        return (self.level + self.spread * z[:, :1]).tanh().view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


def candidate(level, latent=3):
    return CandidateSampler(Linear(level, latent))


class Brightness(nn.Module):
    def forward(self, images):
        return images.mean((1, 2, 3))


def samplers():
    parts = [candidate(-1.0), candidate(1.0, latent=5)]
    mixture = MixtureSampler(parts, [0.25, 0.75])
    return {
        "candidate": parts[0],
        "mixture": mixture,
        "nested": MixtureSampler([mixture, parts[0]], [0.5, 0.5]),
        "average": AverageSampler(parts, [0.5, 0.5]),
        "vote": VoteSampler(mixture, [Brightness()], draws=3),
    }


@pytest.mark.parametrize("kind", samplers())
@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 700), longer=st.integers(0, 400), seed=st.integers(0, 2**63 - 1))
def test_a_longer_draw_begins_with_the_shorter_one(kind, n, longer, seed):
    sampler = samplers()[kind]
    short, long = draw(sampler, n, seed=seed), draw(sampler, n + longer, seed=seed)
    assert short.shape == (n, 1, 2, 2)
    assert short.dtype == torch.uint8
    assert torch.equal(short, long[:n])


@pytest.mark.parametrize("kind", samplers())
def test_seeds_differ_and_repeat(kind):
    sampler = samplers()[kind]
    assert torch.equal(draw(sampler, 300, seed=1), draw(sampler, 300, seed=1))
    assert not torch.equal(draw(sampler, 300, seed=1), draw(sampler, 300, seed=2))


def test_a_mixture_keeps_its_shares():
    images = draw(samplers()["mixture"], 4000, seed=0)
    assert (images[:, 0, 0, 0] > 127).float().mean().item() == pytest.approx(0.75, abs=0.03)


def test_parts_of_a_mixture_are_independent_of_each_other():
    same = MixtureSampler([candidate(1.0), candidate(1.0)], [0.5, 0.5])
    images = draw(same, 200, seed=0)[:, 0, 0, 0]
    assert len(images.unique()) > 5


def test_an_average_shares_latents():
    one = draw(candidate(0.3), 50, seed=4)
    assert torch.equal(draw(AverageSampler([candidate(0.3), candidate(0.3)], [0.3, 0.7]), 50, seed=4), one)


def test_a_vote_prefers_what_the_critics_like():
    mixture = samplers()["mixture"]
    plain = (draw(mixture, 2000, seed=0)[:, 0, 0, 0] > 127).float().mean().item()
    voted = (draw(samplers()["vote"], 2000, seed=0)[:, 0, 0, 0] > 127).float().mean().item()
    # At least one of three draws is bright: 1 − 0.25³.
    assert plain == pytest.approx(0.75, abs=0.03)
    assert voted == pytest.approx(1 - 0.25**3, abs=0.02)


def test_costs_count_every_pass():
    by_kind = samplers()
    assert by_kind["candidate"].cost == 1
    assert by_kind["mixture"].cost == 1
    assert by_kind["average"].cost == 2
    assert by_kind["vote"].cost == 3 * (1 + 1)


def test_rounding_covers_the_whole_range():
    assert to_uint8(torch.tensor([-1.0, 0.0, 1.0, 1.2, -3.0])).tolist() == [0, 128, 255, 255, 0]


def test_labels_are_refused_by_unconditional_members():
    with pytest.raises(ChorusError, match="label -1"):
        next(iter(candidate(0.0).sample(2, seed=0, labels=torch.tensor([-1, 3]))))
    assert len(draw(candidate(0.0), 2, seed=0)) == 2


RECIPE = {
    "kind": "vote",
    "source": {
        "kind": "mixture",
        "weights": [0.5, 0.5],
        "parts": [{"kind": "candidate", "id": "a/r0/1"}, {"kind": "candidate", "id": "b/r0/1"}],
    },
    "critics": ["a/r0/1", "c/r0/1"],
    "draws": 2,
}


def test_a_recipe_builds_and_tells_what_it_needs():
    sampler = build_sampler(RECIPE, lambda name: Linear(0.1), lambda name: Brightness())
    assert draw(sampler, 5, seed=0).shape == (5, 1, 2, 2)
    assert networks_of(RECIPE) == {
        "a/r0/1": {"generator", "discriminator"},
        "b/r0/1": {"generator"},
        "c/r0/1": {"discriminator"},
    }


def test_an_unknown_kind_is_named():
    with pytest.raises(ChorusError, match="'warp'"):
        build_sampler({"kind": "warp"}, Linear, Linear)


@pytest.mark.parametrize("kind", samplers())
def test_no_images_are_no_batches(kind):
    assert list(samplers()[kind].sample(0, seed=0)) == []
