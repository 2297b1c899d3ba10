"""A small U-Net that knows the time: the velocity field of `flow`.

After Ronneberger, Fischer, Brox 2015, "U-Net", with the residual blocks, group normalisation and time embedding of Ho,
Jain, Abbeel 2020, "Denoising Diffusion Probabilistic Models" (appendix B), and the shift and scale of Dhariwal, Nichol
2021, "Diffusion Models Beat GANs" (section 3). It works on patches, so that no layer runs at the image's own size where
most of the time would go, and adds skips where those concatenate.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, silu

from pipeline.layers.convolutional import Down, Up

PATCH = {8: 1, 16: 1, 28: 2, 32: 2, 64: 2, 128: 4}
LOWEST = 8  # side of the smallest maps, at most
BLOCKS = 1  # residual blocks on each level, down and up alike
FREQUENCIES = 32
SHORTEST = 64.0  # the fastest frequency turns so many times while t goes from 0 to 1


def groups(channels: int) -> int:
    """Return the number of groups to normalise in: 8, or fewer where there are too few channels."""
    return math.gcd(8, channels)


class TimeFeatures(nn.Module):
    """Cosines and sines of t, B to B×(2 × FREQUENCIES), from half a turn to `SHORTEST` turns."""

    turns: Tensor

    def __init__(self) -> None:
        super().__init__()
        turns = torch.logspace(math.log2(0.5), math.log2(SHORTEST), FREQUENCIES, base=2.0)
        self.register_buffer("turns", turns, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        angles = 2 * math.pi * t[:, None] * self.turns
        return torch.cat([angles.cos(), angles.sin()], dim=1)


class Block(nn.Module):
    """x + f(x, embedding): two 3×3 convolutions, the second one's input scaled and shifted by the embedding."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups(channels), channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * channels)
        self.norm2 = nn.GroupNorm(groups(channels), channels, affine=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.norm2(self.conv1(silu(self.norm1(x))))
        return x + self.conv2(silu(torch.addcmul(shift, h, 1 + scale)))


class Level(nn.ModuleList):
    """Blocks one after another, all given the same embedding."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for block in self:
            x = block(x, embedding)
        return x


class UNet(nn.Module):
    """Maps images B×C×S×S, times B in [0, 1] and, with classes, labels B to a field B×C×S×S.

    Channels are `width` on the first level and twice as many on all others. It starts as the zero field.
    """

    def __init__(self, channels: int, size: int, width: int, classes: int = 0) -> None:
        super().__init__()
        self.patch = PATCH[size]
        pixels = channels * self.patch**2
        halvings = max(0, math.ceil(math.log2(size / self.patch / LOWEST)))
        levels = [width] + [2 * width] * halvings
        embedding = 4 * width
        self.time = nn.Sequential(TimeFeatures(), nn.Linear(2 * FREQUENCIES, embedding), nn.SiLU())
        self.mix = nn.Linear(embedding, embedding)
        self.label = nn.Embedding(classes, embedding) if classes else None
        self.first = nn.Conv2d(pixels, width, 3, padding=1)

        def blocks(level: int) -> Level:
            return Level(Block(level, embedding) for _ in range(BLOCKS))

        self.before = nn.ModuleList(map(blocks, levels))
        self.after = nn.ModuleList(map(blocks, levels))
        self.down = nn.ModuleList(Down(a, b, bias=True) for a, b in pairwise(levels))
        self.up = nn.ModuleList(Up(b, a, bias=True) for a, b in pairwise(levels))
        self.norm = nn.GroupNorm(groups(width), width)
        self.last = nn.Conv2d(width, pixels, 3, padding=1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def embed(self, t: Tensor, y: Tensor | None) -> Tensor:
        """Return what the blocks are told: time and class, B×embedding."""
        embedding = self.mix(self.time(t))
        if self.label is not None:
            embedding = embedding + self.label(y)
        return silu(embedding)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        embedding = self.embed(t, y)
        x = self.first(pixel_unshuffle(x, self.patch))
        skips = []
        for level, blocks in enumerate(self.before):
            if level:
                x = self.down[level - 1](x)
            x = blocks(x, embedding)
            skips.append(x)
        for level, blocks in reversed(list(enumerate(self.after))):
            x = x + skips[level]
            x = blocks(x, embedding)
            if level:
                x = self.up[level - 1](x)
        return pixel_shuffle(self.last(silu(self.norm(x))), self.patch)
