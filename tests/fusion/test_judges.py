"""Discriminators made of several, as critics of a vote: their snapshots load, judge, and cost what they cost."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.fusion.samplers import VoteSampler, draw
from pipeline.models._base import ModelConfig, build_discriminator, build_generator
from pipeline.recipes import load_sampler
from pipeline.weights import save_snapshot


def snapshot(folder: Path, **values: Any) -> None:
    config = ModelConfig("dcgan", 1, 8, 6, 8, **values)
    discriminator = build_discriminator(config)
    assert discriminator is not None
    save_snapshot(folder, config, {"generator": build_generator(config), "discriminator": discriminator})


@pytest.mark.parametrize("shares", [(), (0.5, 0.5)])
def test_panels_and_identifiers_vote_beside_others(shares: tuple[float, ...], tmp_path: Path) -> None:
    names = ["plain/r0/000000001", "panel/r0/000000001", "joint/r0/000000001"]
    for name, values in zip(names, [{}, {"discriminators": 3}, {"outputs": 4}], strict=True):
        snapshot(tmp_path / name, class_shares=shares, **values)
    parts = [{"kind": "candidate", "id": name} for name in names]
    mixture = {"kind": "mixture", "parts": parts, "weights": [1 / 3] * 3}
    recipe = {"kind": "vote", "source": mixture, "critics": names, "draws": 2}
    sampler = load_sampler(recipe, tmp_path.joinpath)
    assert isinstance(sampler, VoteSampler)
    # Two draws of the mixture, each seen by one critic, three in a panel, and one with a few outputs more.
    alone = VoteSampler(sampler.source, sampler.critics[:1], draws=2).judging_cost
    assert sampler.cost == 2 * (1 + sampler.judging_cost)
    assert sampler.judging_cost == pytest.approx(5 * alone, rel=0.05)
    labels = torch.arange(10) % 2 if shares else None
    images = draw(sampler, 10, seed=0, labels=labels)
    assert images.shape == (10, 1, 8, 8)
    assert torch.equal(images, draw(sampler, 10, seed=0, labels=labels))
