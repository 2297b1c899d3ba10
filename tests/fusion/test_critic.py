import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipeline.fusion.critic import QUANTILES, RULES, FusedCritic, Reading, auc, read_logits
from pipeline.fusion.judging import fit_readings, logits_of
from tests.fusion.test_strategies import problem


class Level(nn.Module):
    """A discriminator whose logit is `factor` times the image's brightness."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, images, y=None):
        return self.factor * images.mean((1, 2, 3))


def images(levels):
    """Uint8 images, each of one level in [-1, 1]."""
    values = torch.as_tensor(levels, dtype=torch.float32).add(1).mul(127.5).round().to(torch.uint8)
    return values[:, None, None, None].expand(-1, 1, 4, 4)


def test_a_reading_is_the_log_odds():
    """Of normal logits around 3 and 1 with variance 0.5² these are (3 - 1)/0.5² · (x - 2)."""
    rng = np.random.default_rng(0)
    reading = read_logits(rng.normal(3, 0.5, 20_000), rng.normal(1, 0.5, 20_000))
    assert reading.slope == pytest.approx(8, rel=0.05)
    assert reading.intercept == pytest.approx(-16, rel=0.05)
    # As many of one kind as of the other, whatever their numbers.
    fewer = read_logits(rng.normal(3, 0.5, 2_000), rng.normal(1, 0.5, 20_000))
    assert fewer.intercept / fewer.slope == pytest.approx(-2, abs=0.05)


def test_a_discriminator_that_tells_nothing_or_the_opposite_does_not_count():
    rng = np.random.default_rng(0)
    for real, generated in [(rng.normal(-1, 1, 500), rng.normal(1, 1, 500)), (np.ones(50), np.ones(60))]:
        reading = read_logits(real, generated)
        assert (reading.slope, reading.intercept) == (0, 0)


def test_a_discriminator_that_makes_no_error_keeps_a_finite_slope():
    reading = read_logits(np.linspace(2, 3, 100), np.linspace(-3, -2, 100))
    assert 1 < reading.slope < 20
    assert abs(reading.intercept) < 1e-6


def test_the_critic_is_the_mean_of_what_the_discriminators_say():
    readings = [Reading(2.0, 1.0, tuple(np.linspace(-1, 1, QUANTILES))), Reading(1.0, 0.0, (0.0,) * QUANTILES)]
    critic = FusedCritic([Level(1.0), Level(3.0)], readings)
    shown = torch.tensor([-0.5, 0.5])[:, None, None, None].expand(-1, 1, 4, 4)
    torch.testing.assert_close(critic(shown), torch.tensor([((2 * -0.5 + 1) - 1.5) / 2, ((2 * 0.5 + 1) + 1.5) / 2]))
    torch.testing.assert_close(critic.ranks(shown), torch.tensor([(0.25 + 0) / 2, (0.75 + 1) / 2]))


@pytest.mark.parametrize("rule", RULES)
def test_scores_lie_between_0_and_1_and_each_image_is_judged_alone(rule):
    rng = np.random.default_rng(0)
    real, generated = images(rng.uniform(-0.2, 1, 700)), images(rng.uniform(-1, 0.2, 700))
    level = Level()
    critic = FusedCritic([level], [read_logits(logits_of(level, real), logits_of(level, generated))])
    scores = critic.scores(real, rule)
    assert 0 <= scores.min() <= scores.max() <= 1
    assert torch.equal(critic.scores(real[300:310], rule), scores[300:310])
    assert auc(scores.numpy(), critic.scores(generated, rule).numpy()) > 0.9
    if rule == "vote":
        assert scores.mean() == pytest.approx(0.5, abs=0.01)
    assert critic.scores(real[:0], rule).shape == (0,)


@settings(max_examples=50, deadline=None)
@given(*[st.lists(st.integers(0, 6), min_size=1, max_size=12)] * 2)
def test_auc_counts_the_pairs(real, generated):
    pairs = [(r > g) + 0.5 * (r == g) for r in real for g in generated]
    assert auc(np.array(real, float), np.array(generated, float)) == pytest.approx(np.mean(pairs))


def test_readings_are_of_each_members_nearest_snapshot_and_the_same_again():
    readings = fit_readings(problem())
    assert list(readings) == ["a/r0/2", "b/r0/1", "c/r0/1"]
    assert readings == fit_readings(problem())
    for reading in readings.values():
        assert Reading.from_json(reading.to_json()) == reading
        assert len(reading.quantiles) == QUANTILES
