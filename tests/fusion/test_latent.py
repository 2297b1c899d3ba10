"""Latents that are rejected before anything is drawn from them."""

import pytest
import torch
from torch import nn

from pipeline.fusion.latent import LatentSampler, images_from, starts
from pipeline.fusion.samplers import CandidateSampler, draw
from pipeline.layers.rater import Rater
from tests.fusion.test_rejection import Dense
from tests.fusion.test_samplers import FirstNumber, Linear, class_of, conditional

ROWS = torch.arange(6000)


class OneClass(nn.Module):
    """Keeps the latents of class 2 alone."""

    def forward(self, begun):
        return begun[:, -1].double().log()


class Nothing(nn.Module):
    """Keeps none, and rates those with a large first number higher."""

    def forward(self, begun):
        return begun[:, 0].double() - 1e9


def test_images_begin_where_the_candidates_own_do() -> None:
    for source in (CandidateSampler(Linear(0.0)), conditional()):
        begun = starts(source, ROWS[:300], 7)
        assert begun.shape == (300, source.latent + source.classes)
        assert torch.equal(images_from(source, begun), source.at(ROWS[:300], 7))


def test_what_is_kept_has_the_density_of_latents_times_probability() -> None:
    """z of N(0, 1) kept with probability Φ(z) has the mean 1/√π."""
    sampler = LatentSampler(CandidateSampler(Linear(0.0, spread=1.0)), FirstNumber(), tries=40, acceptance=0.5)
    first = sampler.at(ROWS, 0)[:, 0, 0, 0].double().atanh()
    assert first.mean().item() == pytest.approx(torch.pi**-0.5, abs=0.03)


def test_the_best_rated_is_taken_where_tries_run_out() -> None:
    """The larger of two normal numbers has the mean 1/√π, too."""
    sampler = LatentSampler(CandidateSampler(Linear(0.0, spread=1.0)), Nothing(), tries=2, acceptance=0.5)
    first = sampler.at(ROWS, 0)[:, 0, 0, 0].double().atanh()
    assert first.mean().item() == pytest.approx(torch.pi**-0.5, abs=0.03)


def test_classes_are_rated_with_their_latents() -> None:
    sampler = LatentSampler(conditional(), OneClass(), tries=60, acceptance=0.6)
    assert (class_of(draw(sampler, 500, seed=0)) == 2).all()
    asked = torch.arange(500) % 3
    assert torch.equal(class_of(draw(sampler, 500, seed=0, labels=asked)), asked)


def test_cost_is_a_draw_and_the_raters_passes_by_operations() -> None:
    rater = Rater(3, 5)
    sampler = LatentSampler(CandidateSampler(Dense()), rater, tries=9, acceptance=0.25)
    assert sampler.cost == pytest.approx(1 + (3 * 5 + 2 * 5 * 5 + 5) / (3 * 4) / 0.25)
