"""R3GAN's networks (Huang, Gokaslan, Kuleshov, Tompkin 2024, "The GAN is dead; long live the GAN!", section 4).

Residual blocks without normalisation, each an inverted bottleneck around a grouped 3×3 convolution, scaled at the start
so that their number does not matter, between bilinear resamplings, and learned maps at the lowest level. The paper
trains them with `loss: relativistic` and `regularisers: {r1, r2}` of equal strength; without penalties nothing holds
this discriminator back. Blocks lie on the levels of `pyramid`, one on each and the largest at half the image's side, so
that an image costs about as much as with DCGAN's networks.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, leaky_relu

from pipeline.layers.conditional import Head, Join
from pipeline.layers.convolutional import Down, pyramid
from pipeline.models._base import Architecture, ModelConfig, register

EXPANSION = 2  # channels inside a block, in units of its own
GROUP = 16  # channels of a group of the 3×3 convolutions
SLOPE = 0.2
GAIN = math.sqrt(2 / (1 + SLOPE**2))  # what keeps the variance through a leaky ReLU (He et al. 2015, equation 15)


def scaled(layer: nn.Module, fan_in: int, gain: float = 1.0) -> nn.Module:
    """Draw a layer's weights from N(0, gain² / fan_in), set its bias to 0 where it has one, and return it."""
    for name, parameter in layer.named_parameters():
        nn.init.normal_(parameter, 0.0, gain / math.sqrt(fan_in) if name == "weight" else 0.0)
    return layer


def pointwise(before: int, after: int, gain: float = 1.0, bias: bool = False) -> nn.Module:
    """Return a 1×1 convolution."""
    return scaled(nn.Conv2d(before, after, 1, bias=bias), before, gain)


class Block(nn.Module):
    """x + f(x), f: 1×1 convolution, leaky ReLU, grouped 3×3, leaky ReLU, 1×1, which starts at zero.

    depth: blocks of the network. The first two weights shrink by depth^(-1/4) (Zhang, Dauphin, Ma 2019, "Fixup
    Initialization", section 3: L^(-1 / (2m - 2)) with m = 3 layers).
    """

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        inner, gain = EXPANSION * channels, GAIN * depth**-0.25
        groups = inner // math.gcd(inner, GROUP)
        self.widen = pointwise(channels, inner, gain, bias=True)
        self.mix = scaled(nn.Conv2d(inner, inner, 3, padding=1, groups=groups), 9 * inner // groups, gain)
        self.narrow = pointwise(inner, channels, 0.0, bias=True)

    def forward(self, maps: Tensor) -> Tensor:
        inner = leaky_relu(self.mix(leaky_relu(self.widen(maps), SLOPE)), SLOPE)
        return maps + self.narrow(inner)


class Double(nn.Module):
    """A 1×1 convolution, then bilinear interpolation to twice the side (the two commute)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = pointwise(before, after)

    def forward(self, maps: Tensor) -> Tensor:
        return interpolate(self.conv(maps), scale_factor=2, mode="bilinear")


class Halve(nn.Module):
    """Bilinear interpolation to half the side, which is the mean of 2×2 pixels, then a 1×1 convolution."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = pointwise(before, after)

    def forward(self, maps: Tensor) -> Tensor:
        return self.conv(avg_pool2d(maps, 2))


class Unfold(nn.Module):
    """Learned maps, one a channel, each times a number that is linear in the input: B×Z to B×channels×side×side."""

    def __init__(self, inputs: int, channels: int, side: int) -> None:
        super().__init__()
        self.linear = scaled(nn.Linear(inputs, channels, bias=False), inputs)
        self.maps = nn.Parameter(torch.randn(side, side, channels))

    def forward(self, z: Tensor) -> Tensor:
        numbers = self.linear(z)[:, None, None, :]
        return (numbers * self.maps.to(numbers.dtype)).permute(0, 3, 1, 2)


class Fold(nn.Module):
    """The inner product of each channel with a learned map: B×channels×side×side to B×channels."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.maps = nn.Parameter(torch.randn(channels, side, side) / side)

    def forward(self, maps: Tensor) -> Tensor:
        return (maps * self.maps).sum((2, 3))


class Generator(nn.Module):
    """Learned maps, on each level a block and then bilinear doubling, a 3×3 convolution, tanh."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.latent = config.latent
        base, channels = pyramid(config.size, config.width)
        depth = len(channels)
        self.join = Join(config.latent, config.classes)
        layers: list[nn.Module] = [Unfold(self.join.length, channels[0], base), Block(channels[0], depth)]
        for before, after in pairwise(channels):
            layers += [Double(before, after), Block(after, depth)]
        last = scaled(nn.Conv2d(channels[-1], config.channels, 3, padding=1), 9 * channels[-1])
        layers += [nn.Upsample(scale_factor=2, mode="bilinear"), last, nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×latent, and B labels where there are classes, to B×C×H×W in [-1, 1]."""
        return self.layers(self.join(z, y))


class Discriminator(nn.Module):
    """The mirror image: a strided convolution, on each level a block and then halving, products with maps, the logit.

    Dropout, where it is asked for, leaves out whole maps after each halving.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        base, channels = pyramid(config.size, config.width)
        channels = channels[::-1]
        depth = len(channels)
        first = scaled(Down(config.channels, channels[0], bias=True), 16 * config.channels)
        layers: list[nn.Module] = [first, Block(channels[0], depth)]
        for before, after in pairwise(channels):
            layers += [Halve(before, after), Block(after, depth)]
            if config.dropout:
                layers.append(nn.Dropout2d(config.dropout))
        self.layers = nn.Sequential(*layers, Fold(channels[-1], base))
        self.head = Head(channels[-1], config.classes, config.outputs)

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×C×H×W in [-1, 1], and B labels where there are classes, to B logits (or B×outputs)."""
        return self.head(self.layers(images), y)


register(Architecture("r3gan", Generator, Discriminator))
