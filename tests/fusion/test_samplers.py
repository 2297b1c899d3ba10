import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.errors import ChorusError
from pipeline.evaluation.networks import NetworkConfig, build
from pipeline.fusion.kinds import Loader, build_sampler
from pipeline.fusion.latent import LatentSampler
from pipeline.fusion.needs import networks_of
from pipeline.fusion.ratio import Ratio
from pipeline.fusion.rejection import RejectionSampler
from pipeline.fusion.samplers import (
    BLOCK,
    AverageSampler,
    CandidateSampler,
    MixtureSampler,
    VoteSampler,
    draw,
    to_uint8,
)
from pipeline.layers.rater import Rater


class Linear(nn.Module):
    """A generator of 1×2×2 images around a level, so that the images tell which generator made them."""

    def __init__(self, level, latent=3, spread=0.05):
        super().__init__()
        self.latent, self.level, self.spread = latent, level, spread

    def forward(self, z, y=None):
        return (self.level + self.spread * z[:, :1]).tanh().view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


def candidate(level, latent=3):
    return CandidateSampler(Linear(level, latent))


class ByClass(Linear):
    """A conditional generator of images around one level a class."""

    def __init__(self, levels, shares, latent=3):
        super().__init__(0.0, latent)
        self.levels, self.class_shares = torch.tensor(levels), shares

    def forward(self, z, y=None):
        return super().forward(z) * 0.1 + self.levels[y][:, None, None, None]


class Brightness(nn.Module):
    def forward(self, images, y=None):
        return images.mean((1, 2, 3))


class LogBrightness(Brightness):
    """Accepts an image with a probability that is its brightness, from 0 for black to 1 for white."""

    def forward(self, images, y=None):
        return (super().forward(images).double() / 2 + 0.5).clamp(min=0).log()


class FirstNumber(nn.Module):
    """Keeps a latent with the probability Φ of its first number."""

    def forward(self, begun):
        return torch.special.log_ndtr(begun[:, 0].double())


class ClassCritic(nn.Module):
    """Prefers dark images of class 0, and bright ones of class 1 or of no asked class."""

    def forward(self, images, y=None):
        brightness = images.mean((1, 2, 3))
        return brightness if y is None else brightness * (2.0 * y - 1)


# Class 0 is dark, class 1 grey, class 2 bright; the grey one is rare.
SHARES = (0.3, 0.1, 0.6)


def conditional(levels=(-0.6, 0.0, 0.6)):
    return CandidateSampler(ByClass(levels, SHARES))


def class_of(images):
    """The class of each uint8 image that `conditional` drew."""
    return torch.bucketize(images[:, 0, 0, 0].int(), torch.tensor([90, 165]))


ABLE = ["conditional", "partly conditional", "rejection of a conditional", "latents of a conditional"]


def samplers():
    parts = [candidate(-1.0), candidate(1.0, latent=5)]
    mixture = MixtureSampler(parts, [0.25, 0.75])
    return {
        "candidate": parts[0],
        "mixture": mixture,
        "nested": MixtureSampler([mixture, parts[0]], [0.5, 0.5]),
        "average": AverageSampler(parts, [0.5, 0.5]),
        "vote": VoteSampler(mixture, [Brightness()], draws=3),
        "rejection": RejectionSampler(mixture, LogBrightness(), tries=5, acceptance=0.7),
        "rejection of a conditional": RejectionSampler(conditional(), LogBrightness(), tries=5, acceptance=0.7),
        "latents": LatentSampler(candidate(0.0), FirstNumber(), tries=5, acceptance=0.5),
        "latents of a conditional": LatentSampler(conditional(), FirstNumber(), tries=5, acceptance=0.5),
        "conditional": conditional(),
        "partly conditional": MixtureSampler([parts[0], conditional()], [0.5, 0.5]),
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
    if longer:
        assert torch.equal(torch.cat(list(sampler.sample(longer, seed=seed, first=n))), long[n:])


@pytest.mark.parametrize("kind", samplers())
@settings(max_examples=15, deadline=None)
@given(rows=st.sets(st.integers(0, 3 * BLOCK), min_size=1, max_size=40), seed=st.integers(0, 2**63 - 1))
def test_any_rows_are_drawn_without_the_others(kind, rows, seed):
    sampler, some = samplers()[kind], torch.tensor(sorted(rows))
    images = draw(sampler, 3 * BLOCK + 1, seed=seed)
    assert torch.equal(to_uint8(sampler.at(some, seed)), images[some])


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


class Costly(Linear):
    """Takes 6 operations an image, as one number is made of three."""

    def forward(self, z, y=None):
        return super().forward(z) + 0 * (z[:, :3] @ torch.ones(3, 1))[:, :, None, None]


class CostlyCritic(Brightness):
    """Takes 24 operations an image, as three numbers are made of four."""

    def forward(self, images, y=None):
        return super().forward(images) + 0 * (images.flatten(1) @ torch.ones(4, 3)).sum(1)


def test_costs_count_every_pass_of_a_generator_and_the_critics_by_their_operations():
    by_kind = samplers()
    assert by_kind["candidate"].cost == 1
    assert by_kind["mixture"].cost == 1
    assert by_kind["average"].cost == 2
    vote = VoteSampler(CandidateSampler(Costly(0.0)), [CostlyCritic(), CostlyCritic()], draws=3)
    assert vote.cost == pytest.approx(3 * (1 + 2 * 24 / 6))


def test_rounding_covers_the_whole_range():
    assert to_uint8(torch.tensor([-1.0, 0.0, 1.0, 1.2, -3.0])).tolist() == [0, 128, 255, 255, 0]


def test_labels_are_refused_by_unconditional_members():
    with pytest.raises(ChorusError, match=r"label 3 does not exist.*label -1"):
        draw(candidate(0.0), 2, seed=0, labels=torch.tensor([-1, 3]))
    assert len(draw(candidate(0.0), 2, seed=0)) == 2
    any_class = torch.full((300,), -1)
    assert torch.equal(draw(candidate(0.0), 300, seed=0, labels=any_class), draw(candidate(0.0), 300, seed=0))


@pytest.mark.parametrize("label", [-2, 3])
def test_a_class_that_does_not_exist_is_refused(label):
    with pytest.raises(ChorusError, match=rf"label {label} does not exist: this model knows the classes 0 to 2,"):
        draw(conditional(), 2, seed=0, labels=torch.tensor([1, label]))


@pytest.mark.parametrize("kind", ABLE)
def test_asked_classes_are_delivered(kind):
    labels = torch.arange(600) % 3
    assert torch.equal(class_of(draw(samplers()[kind], 600, seed=0, labels=labels)), labels)


def test_classes_come_by_their_shares_where_none_is_asked():
    images = draw(conditional(), 6000, seed=0)
    shares = class_of(images).bincount(minlength=3) / len(images)
    assert shares.tolist() == pytest.approx(SHARES, abs=0.02)
    assert torch.equal(images, draw(conditional(), 6000, seed=0, labels=torch.full((6000,), -1)))


@pytest.mark.parametrize("kind", ABLE)
@settings(max_examples=15, deadline=None)
@given(labels=st.lists(st.integers(-1, 2), min_size=1, max_size=520), seed=st.integers(0, 2**63 - 1))
def test_a_row_of_any_class_is_what_it_is_without_labels(kind, labels, seed):
    sampler, labels = samplers()[kind], torch.tensor(labels)
    images = draw(sampler, len(labels), seed=seed, labels=labels)
    any_class = labels < 0
    assert torch.equal(images[any_class], draw(sampler, len(labels), seed=seed)[any_class])
    assert torch.equal(class_of(images[~any_class]), labels[~any_class])


def test_a_candidates_image_depends_on_its_own_label_alone():
    labels = torch.arange(300) % 3
    images = draw(conditional(), 300, seed=0, labels=labels)
    other = labels.clone()
    other[1::2] = 0
    assert torch.equal(draw(conditional(), 300, seed=0, labels=other)[::2], images[::2])


def test_only_parts_that_know_classes_serve_asked_ones():
    mixture = MixtureSampler([candidate(-1.0), conditional((-0.6, 0.0, 0.6)), conditional((0.9, 0.9, 0.9))], [6, 3, 1])
    dark = draw(mixture, 3000, seed=0, labels=torch.zeros(3000, dtype=torch.int64))
    assert (dark[:, 0, 0, 0] > 200).float().mean().item() == pytest.approx(0.25, abs=0.03)  # of the last part
    assert (dark[:, 0, 0, 0] > 30).all()  # none of the first part, tanh(-1)
    assert MixtureSampler([candidate(-1.0), conditional()], [1.0, 0.0]).classes == 0


def test_an_average_is_of_one_class_where_all_parts_know_them():
    labels = torch.arange(300) % 3
    both = AverageSampler([conditional(), conditional()], [0.5, 0.5])
    assert torch.equal(class_of(draw(both, 300, seed=0, labels=labels)), labels)
    assert AverageSampler([conditional(), candidate(0.0)], [0.5, 0.5]).classes == 0


def test_a_critic_that_puts_out_no_number_does_not_win_the_vote():
    class Broken(nn.Module):
        def forward(self, images, labels=None):
            shown = images.mean(dim=(1, 2, 3))
            return shown.where(shown < 0, torch.nan)

    source = MixtureSampler([candidate(-0.5), candidate(0.5)], [0.5, 0.5])
    voted = draw(VoteSampler(source, [Broken()], draws=6), 1000, seed=0)[:, 0, 0, 0] > 127
    assert voted.float().mean().item() == pytest.approx(0.5**6, abs=0.02)


def test_networks_look_at_no_more_images_at_once_than_generators_draw():
    passes = []

    class Watched(nn.Module):
        def forward(self, images, labels=None):
            passes.append(len(images))
            return images.mean(dim=(1, 2, 3))

    draw(VoteSampler(candidate(0.5), [Watched()], draws=8), 1000, seed=0)
    draw(RejectionSampler(candidate(0.5), Watched(), 4, 0.5), 1000, seed=0)
    assert max(passes) == BLOCK


def test_a_vote_judges_images_of_an_asked_class_as_such():
    source = MixtureSampler([conditional((-0.5, -0.5, 0.0)), conditional((0.5, 0.5, 0.0))], [0.5, 0.5])
    voted = VoteSampler(source, [ClassCritic()], draws=6)
    labels = torch.arange(1000) % 2
    bright = draw(voted, 1000, seed=0, labels=labels)[:, 0, 0, 0] > 127
    assert bright[labels == 1].float().mean().item() > 0.95  # 1 - 0.5⁶ expected
    assert bright[labels == 0].float().mean().item() < 0.05


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
    sampler = build_sampler(RECIPE, Loader(lambda name: Linear(0.1), lambda name: Brightness(), Linear))
    assert draw(sampler, 5, seed=0).shape == (5, 1, 2, 2)
    assert networks_of(RECIPE) == {
        "a/r0/1": {"generator", "discriminator"},
        "b/r0/1": {"generator"},
        "c/r0/1": {"discriminator"},
    }


def test_a_rejection_takes_its_source_its_ratio_and_extractors():
    companions = {"ratio": "ratios/mine", "seen": "extractors/seen"}
    recipe = {"kind": "rejection", "source": RECIPE, "companions": companions, "tries": 3, "acceptance": 0.5}
    found = {"ratios/mine": Ratio(["seen"], 16, 2), "extractors/seen": build(NetworkConfig("plain", 1, 2, 16))}
    sampler = build_sampler(recipe, Loader(lambda name: Linear(0.1), lambda name: Brightness(), found.get))
    assert draw(sampler, 5, seed=0).shape == (5, 1, 2, 2)
    made = {"ratios/mine": {"model"}, "extractors/seen": {"model"}}
    assert networks_of(recipe) == networks_of(RECIPE) | made


def test_latents_take_a_candidate_and_a_rater():
    recipe = {"kind": "latents", "source": {"kind": "candidate", "id": "a/r0/1"}, "tries": 3, "acceptance": 0.5}
    recipe["companions"] = {"rater": "raters/mine"}
    load = Loader(lambda name: Linear(0.1), lambda name: Brightness(), lambda name: Rater(3, 4))
    assert draw(build_sampler(recipe, load), 5, seed=0).shape == (5, 1, 2, 2)
    assert networks_of(recipe) == {"a/r0/1": {"generator"}, "raters/mine": {"model"}}


def test_an_unknown_kind_is_named():
    with pytest.raises(ChorusError, match="'warp'"):
        build_sampler({"kind": "warp"}, Loader(Linear, Linear, Linear))


def test_a_draw_is_continued_with_the_labels_of_its_rows():
    labels = torch.arange(600) % 4 - 1
    sampler = samplers()["partly conditional"]
    later = torch.cat(list(sampler.sample(100, seed=0, labels=labels[500:], first=500)))
    assert torch.equal(later, draw(sampler, 600, seed=0, labels=labels)[500:])


@pytest.mark.parametrize("name", ["../../x", "/etc/x/y", "a/../c", "x", "a/b/c/d", "A/b/c"])
def test_a_recipe_names_no_folder_outside_the_models(name):
    for recipe in (
        {"kind": "candidate", "id": name},
        {"kind": "vote", "source": {"kind": "candidate", "id": "a/r0/1"}, "critics": [name], "draws": 2},
        {"kind": "stack", "parts": [{"kind": "candidate", "id": "a/r0/1"}], "companions": {"combiner": name}},
    ):
        with pytest.raises(ChorusError, match="not the id of a candidate"):
            networks_of(recipe)


@pytest.mark.parametrize("kind", samplers())
def test_no_images_are_no_batches(kind):
    assert list(samplers()[kind].sample(0, seed=0)) == []
