import numpy as np
import pytest
import torch
from torch import nn

from pipeline.evaluation.networks import NetworkConfig, build, to_float
from pipeline.fusion.ratio import ImageRatio, Ratio
from pipeline.fusion.rejection import RejectionSampler
from pipeline.fusion.samplers import CandidateSampler, MixtureSampler, draw, to_uint8
from tests.fusion.test_samplers import LogBrightness, candidate, class_of, conditional


class Never(nn.Module):
    """Accepts nothing, and rates bright images higher."""

    def forward(self, images):
        return images.mean((1, 2, 3)).double() - 1e9


class Dense(nn.Module):
    """A generator of 1×2×2 images by one matrix product: 2·3·4 operations an image."""

    def __init__(self):
        super().__init__()
        self.latent, self.layer = 3, nn.Linear(3, 4)

    def forward(self, z, y=None):
        return self.layer(z).tanh().view(-1, 1, 2, 2)


def grey(level):
    """The uint8 that a generator at `level` draws around."""
    return 127.5 * (np.tanh(level) + 1)


def bright_share(images):
    return (images[:, 0, 0, 0] > 127).float().mean().item()


def test_what_is_accepted_has_the_density_of_source_times_probability() -> None:
    source = MixtureSampler([candidate(-0.5), candidate(0.5)], [0.5, 0.5])
    accepted = RejectionSampler(source, LogBrightness(), tries=60, acceptance=0.5)
    dark, bright = grey(-0.5), grey(0.5)
    assert bright_share(draw(accepted, 6000, seed=0)) == pytest.approx(bright / (dark + bright), abs=0.02)


def test_the_best_rated_is_delivered_where_tries_run_out() -> None:
    source = MixtureSampler([candidate(-0.5), candidate(0.5)], [0.75, 0.25])
    images = draw(RejectionSampler(source, Never(), tries=3, acceptance=0.5), 3000, seed=0)
    assert bright_share(images) == pytest.approx(1 - 0.75**3, abs=0.03)


def test_one_try_is_the_source() -> None:
    source = candidate(0.0)
    once = RejectionSampler(source, Never(), tries=1, acceptance=0.5)
    assert len(draw(once, 40, seed=0)) == 40
    assert draw(once, 3000, seed=0).float().mean() == pytest.approx(draw(source, 3000, seed=0).float().mean(), abs=0.5)


def test_an_image_depends_on_its_own_label_alone() -> None:
    sampler = RejectionSampler(conditional(), LogBrightness(), tries=8, acceptance=0.5)
    labels = torch.arange(400) % 3
    images = draw(sampler, 400, seed=0, labels=labels)
    assert torch.equal(class_of(images), labels)
    other = labels.clone()
    other[1::2] = 0
    assert torch.equal(draw(sampler, 400, seed=0, labels=other)[::2], images[::2])


def test_cost_counts_the_ratios_pass_by_operations() -> None:
    rating = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.Linear(6, 1), nn.Flatten(0))
    sampler = RejectionSampler(CandidateSampler(Dense()), rating, tries=4, acceptance=0.25)
    assert sampler.cost == pytest.approx((1 + (4 * 6 + 6) / (3 * 4)) / 0.25)


def test_an_images_ratio_is_the_form_of_its_features_as_delivered() -> None:
    torch.manual_seed(0)
    networks = {name: build(NetworkConfig("plain", 1, 8, size)).eval() for name, size in (("a", 5), ("b", 3))}
    ratio = Ratio(["b", "a"], features=8, components=2)
    for buffer in ratio.buffers():
        buffer.copy_(torch.randn_like(buffer))
    images = torch.rand(6, 1, 8, 8) * 2 - 1
    seen = to_float(to_uint8(images))
    with torch.inference_mode():
        f = torch.cat([networks["b"](seen)[0], networks["a"](seen)[0]], 1).double().numpy()
        found = ImageRatio(ratio, networks)(images).numpy()
    given = {name: value.numpy() for name, value in ratio.state_dict().items()}
    z = (f - given["centre"]) @ given["basis"]
    linear = given["bias"] + z @ given["linear"]
    by_hand = [start + row @ given["quadratic"] @ row for start, row in zip(linear, z, strict=True)]
    np.testing.assert_allclose(found, by_hand, rtol=1e-12)
