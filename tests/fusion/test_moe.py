"""The sampler of experts: who draws what, in which shares, at what cost, whatever else is asked for."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.errors import ChorusError
from pipeline.evaluation.networks import NetworkConfig, build, to_float
from pipeline.evaluation.ruler import fit_ruler
from pipeline.fusion.clusters import clusters
from pipeline.fusion.kinds import Loader, build_sampler
from pipeline.fusion.moe import MoeSampler, Router
from pipeline.fusion.needs import networks_of
from pipeline.fusion.samplers import CandidateSampler, MixtureSampler, draw, to_uint8
from tests.fusion.test_samplers import ByClass, Linear

# An image's level says its class (dark, grey, bright) and, by a shift, its part.
LEVELS = np.array([-0.6, 0.0, 0.6])
SHIFTS = (0.0, 0.15)
SHARES = (0.5, 0.3, 0.2)
TABLE = ((1.0, 0.0), (0.25, 0.75), (0.5, 0.5))


def conditional(shift, shares=(0.2, 0.2, 0.6)):
    return CandidateSampler(ByClass(list(LEVELS + shift), shares))


class Levels(Linear):
    """An unconditional generator of three kinds of images, in unequal shares; a pass takes 48 operations an image."""

    def __init__(self, shift, shares):
        super().__init__(0.0)
        self.levels = torch.tensor(LEVELS + shift, dtype=torch.float32)
        self.ends = torch.distributions.Normal(0, 1).icdf(torch.tensor(shares).cumsum(0)[:-1])

    def forward(self, z, y=None):
        kind = torch.bucketize(z[:, 1].contiguous() + 0 * (z @ torch.ones(3, 8))[:, 0], self.ends)
        return super().forward(z) * 0.1 + self.levels[kind][:, None, None, None]


FOUND = ((0.2, 0.6), (0.3, 0.2), (0.5, 0.2))


def unconditional(part):
    return CandidateSampler(Levels(SHIFTS[part], [row[part] for row in FOUND]))


def level(images):
    return images[:, 0, 0, 0].float() / 127.5 - 1


def class_of(images):
    return torch.bucketize(level(images).contiguous(), torch.tensor([-0.25, 0.35]))


class ByLevel(nn.Module):
    """Knows the classes; a pass takes 24 operations an image."""

    def forward(self, images):
        assert images.dtype == torch.float32
        return class_of(to_uint8(images)) + (0 * images.flatten(1) @ torch.ones(4, 3))[:, 0].long()


class Level(nn.Module):
    """An extractor whose one feature is an image's level."""

    def forward(self, images):
        return images[:, 0, 0, :1], None


def part_of(images):
    classes = class_of(images)
    return (level(images) - torch.tensor(LEVELS, dtype=torch.float32)[classes] > 0.075).long()


def samplers():
    known = [conditional(shift) for shift in SHIFTS]
    drawn = [unconditional(part) for part in range(2)]
    routed = {"router": ByLevel(), "found": FOUND}
    asked = MoeSampler(known, SHARES, TABLE, by_class=True)
    return {
        "asked": asked,
        "routed": MoeSampler(drawn, SHARES, TABLE, by_class=True, **routed),
        "clusters": MoeSampler(drawn, SHARES, TABLE, by_class=False, **routed),
        "both": MoeSampler(
            [known[0], drawn[1]], SHARES, TABLE, by_class=True, router=ByLevel(), found=[[0.0, f] for _, f in FOUND]
        ),
        "nested": MoeSampler(
            [MixtureSampler([known[0], known[0]], [0.5, 0.5]), asked.parts[1]], SHARES, TABLE, by_class=True
        ),
        "inside": MixtureSampler([asked, asked], [0.5, 0.5]),
    }


KINDS = list(samplers())
ASKABLE = [kind for kind in KINDS if kind != "clusters"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(n=st.integers(1, 500), longer=st.integers(0, 300), seed=st.integers(0, 2**63 - 1))
def test_a_longer_draw_begins_with_the_shorter_one(kind, n, longer, seed):
    sampler = samplers()[kind]
    short, long = draw(sampler, n, seed=seed), draw(sampler, n + longer, seed=seed)
    assert short.shape == (n, 1, 2, 2)
    assert torch.equal(short, long[:n])


@pytest.mark.parametrize("kind", ASKABLE)
@settings(max_examples=8, deadline=None)
@given(labels=st.lists(st.integers(-1, 2), min_size=1, max_size=400), seed=st.integers(0, 2**63 - 1))
def test_an_image_depends_on_its_own_label_alone(kind, labels, seed):
    sampler, labels = samplers()[kind], torch.tensor(labels)
    images = draw(sampler, len(labels), seed=seed, labels=labels)
    assert torch.equal(class_of(images)[labels >= 0], labels[labels >= 0])
    assert torch.equal(images[labels < 0], draw(sampler, len(labels), seed=seed)[labels < 0])
    for label in range(3):
        only = draw(sampler, len(labels), seed=seed, labels=torch.full_like(labels, label))
        assert torch.equal(images[labels == label], only[labels == label])


@pytest.mark.parametrize("kind", KINDS)
def test_groups_and_members_come_in_their_shares(kind):
    images = draw(samplers()[kind], 8000, seed=0)
    joint = torch.zeros(3, 2).index_put((class_of(images), part_of(images)), torch.tensor(1.0), accumulate=True)
    expected = np.array(SHARES)[:, None] * np.array(TABLE)
    assert (joint / len(images)).numpy() == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("kind", ASKABLE)
@pytest.mark.parametrize("label", range(3))
def test_of_an_asked_class_members_follow_the_weights_of_that_class(kind, label):
    images = draw(samplers()[kind], 4000, seed=1, labels=torch.full((4000,), label))
    assert (class_of(images) == label).all()
    assert part_of(images).float().mean().item() == pytest.approx(TABLE[label][1], abs=0.03)


def test_costs_count_what_is_thrown_away():
    by_kind = samplers()
    assert by_kind["asked"].cost == pytest.approx(1)
    # Part 0: the most wanted for what it finds is class 0, ½ ÷ 0.2; part 1: class 1, 0.225 ÷ 0.2.
    tries = 0.5 / 0.2 + 0.225 / 0.2
    assert by_kind["routed"].cost == pytest.approx(1.5 * tries)
    assert by_kind["both"].cost == pytest.approx((0.5 + 0.075 + 0.1) + 1.5 * 0.225 / 0.2)


@pytest.mark.parametrize("kind", ["routed", "both"])
def test_as_many_images_are_drawn_as_the_cost_says(kind, monkeypatch):
    sampler, passes = samplers()[kind], [0, 0]
    for i, part in enumerate(sampler.parts):
        network = part.network

        def counted(z, y=None, i=i, forward=network.forward):
            passes[i] += len(z)
            return forward(z, y)

        monkeypatch.setattr(network, "forward", counted)
    draw(sampler, 6000, seed=3)
    unasked = passes[0] * (kind == "routed") + passes[1]
    assert (sum(passes) + 0.5 * unasked) / 6000 == pytest.approx(sampler.cost, rel=0.05)


def test_what_nobody_draws_is_refused():
    gap = MoeSampler([conditional(0.0)], (0.5, 0.0, 0.5), [[1.0], [0.0], [1.0]], by_class=True)
    for sampler in (gap, MixtureSampler([gap], [1.0])):
        assert sampler.lacking == (1,)
        assert set(class_of(draw(sampler, 100, seed=0)).tolist()) == {0, 2}
        with pytest.raises(ChorusError, match=r"no member draws label 1"):
            draw(sampler, 3, seed=0, labels=torch.tensor([0, 1, 2]))
    with pytest.raises(ChorusError, match="label 3 does not exist: this model knows the classes 0 to 2"):
        draw(samplers()["routed"], 1, seed=0, labels=torch.tensor([3]))
    with pytest.raises(ChorusError, match="use label -1"):
        draw(samplers()["clusters"], 1, seed=0, labels=torch.tensor([0]))


def test_a_member_that_has_lost_a_group_ends_with_a_message():
    lost = CandidateSampler(Levels(0.0, [0.5, 0.5, 0.0]))
    sampler = MoeSampler([lost], SHARES, [[1.0]] * 3, by_class=True, router=ByLevel(), found=[[0.4], [0.4], [0.2]])
    with pytest.raises(ChorusError, match="tries gave no image"):
        draw(sampler, 4, seed=0, labels=torch.tensor([2] * 4))


def test_a_recipe_builds_it():
    parts = [{"kind": "candidate", "id": name} for name in ("a/r0/1", "b/r0/1")]
    recipe = {"kind": "moe", "by_class": True, "shares": SHARES, "table": TABLE, "weights": [0.7, 0.3], "parts": parts}
    networks = {name: conditional(shift).network for name, shift in zip(("a/r0/1", "b/r0/1"), SHIFTS, strict=True)}
    sampler = build_sampler(recipe, Loader(networks.__getitem__, networks.__getitem__, networks.__getitem__))
    assert torch.equal(draw(sampler, 50, seed=0), draw(samplers()["asked"], 50, seed=0))
    assert networks_of(recipe) == {"a/r0/1": {"generator"}, "b/r0/1": {"generator"}}


def test_the_router_says_of_images_what_the_head_says_of_their_features():
    torch.manual_seed(0)
    network = build(NetworkConfig("plain", 1, 8, 6)).eval()
    images = torch.rand(300, 1, 8, 8) * 2 - 1
    with torch.inference_mode():
        features = network(to_float(to_uint8(images)))[0].numpy()
    ruler = fit_ruler("selfsup", features, 3)
    head = clusters(ruler.relative(features), 5, seed=0)
    own = head.before(ruler)
    groups = Router(network, own.weights.tolist(), own.biases.tolist())(images).numpy()
    assert len(set(groups.tolist())) == 5
    assert (groups == head.groups(ruler.relative(features))).mean() > 0.99


def test_a_recipe_of_members_that_cannot_be_asked_brings_its_router():
    parts = [{"kind": "candidate", "id": name} for name in ("a/r0/1", "b/r0/1")]
    recipe = {"kind": "moe", "by_class": True, "shares": SHARES, "table": TABLE, "weights": [0.7, 0.3], "parts": parts}
    recipe |= {"companions": {"router": "extractors/mine"}, "found": FOUND}
    recipe |= {"head": {"weights": [[-2.0], [0.0], [2.0]], "biases": [-0.5, 0.0, -0.7]}}
    generators = {name: unconditional(part).network for part, name in enumerate(("a/r0/1", "b/r0/1"))}
    sampler = build_sampler(recipe, Loader(generators.__getitem__, generators.__getitem__, lambda _: Level()))
    assert torch.equal(draw(sampler, 50, seed=0), draw(samplers()["routed"], 50, seed=0))
    assert networks_of(recipe)["extractors/mine"] == {"model"}
