"""Random streams depend on what they are for and on the images seen, on nothing drawn before."""

import torch

from pipeline.training.streams import Streams


def test_order_is_shuffled_epochs_end_to_end() -> None:
    streams = Streams(0, "a", 0)
    whole = streams.order(0, 30, n=10)
    for epoch in whole.view(3, 10):
        assert sorted(epoch.tolist()) == list(range(10))
    assert not torch.equal(whole[:10], whole[10:20])


def test_order_is_the_same_whatever_the_batches_and_wherever_one_starts() -> None:
    whole = Streams(0, "a", 0).order(0, 28, n=10)
    streams = Streams(0, "a", 0)
    assert torch.equal(torch.cat([streams.order(i, 7, n=10) for i in range(0, 28, 7)]), whole)
    assert torch.equal(Streams(0, "a", 0).order(13, 9, n=10), whole[13:22])


def test_streams_differ_by_seed_family_replica_purpose_and_images_seen() -> None:
    draws = [
        Streams(seed, family, replica).normal(4, purpose=purpose, nimg=nimg)
        for seed, family, replica, purpose, nimg in [
            (0, "a", 0, "latent", 0),
            (1, "a", 0, "latent", 0),
            (0, "b", 0, "latent", 0),
            (0, "a", 1, "latent", 0),
            (0, "a", 0, "sheet", 0),
            (0, "a", 0, "latent", 64),
        ]
    ]
    assert len({tuple(draw.tolist()) for draw in draws}) == len(draws)
