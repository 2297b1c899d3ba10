"""A stack of generators counts its combiner by what it computes."""

import pytest
import torch
from torch import nn

from pipeline.layers.combiner import Stack


class Drawing(nn.Module):
    """A generator of 1×2×2 images with 12 weights."""

    latent = 3

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.linear(z).view(-1, 1, 2, 2)


def test_a_combiner_costs_as_many_passes_as_it_takes_operations() -> None:
    combiner = nn.Sequential(nn.Flatten(), nn.Linear(8, 4, bias=False), nn.Unflatten(1, (1, 2, 2)))
    assert Stack([Drawing(), Drawing()], combiner).passes == pytest.approx(2 * (1 + 32 / 24))
