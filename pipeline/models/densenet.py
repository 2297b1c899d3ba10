"""Dense blocks in the generator and in the discriminator (Huang, Liu, van der Maaten, Weinberger 2017, "Densely
Connected Convolutional Networks").

Blocks lie on the levels of `pyramid`, the largest at half the image's side, where the discriminator's strided
convolution begins, as in their networks for large images. The discriminator has no normalisation, so that penalties
see each image alone.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, relu

from pipeline.layers.conditional import Head, Labelled, Layers, batch_norm, normalised
from pipeline.layers.convolutional import Down, ToMap, ToVector, pyramid
from pipeline.models._base import Architecture, ModelConfig, register

LAYERS = 3  # of a block
SLOPE = 0.2


class Level(NamedTuple):
    """How many channels a level's block is given, each of its layers adds (k, section 3), and it has at its end."""

    given: int
    added: int
    end: int


def level(channels: int) -> Level:
    """Return the block of a level on which DCGAN has `channels`: each layer adds a quarter, and costs as little."""
    given, added = max(1, channels // 2), max(1, channels // 4)
    return Level(given, added, given + LAYERS * added)


def conv(before: int, after: int, side: int) -> nn.Conv2d:
    """Return a side×side convolution that keeps the maps' size, drawn for rectified maps (He et al. 2015)."""
    layer = nn.Conv2d(before, after, side, padding=side // 2)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return layer


class Normalised(Labelled):
    """Batch norm (by class where there are classes), ReLU, a convolution: their composite function H (section 3)."""

    def __init__(self, before: int, after: int, side: int, classes: int) -> None:
        super().__init__()
        self.norm = batch_norm(before, classes)
        self.conv = conv(before, after, side)

    def forward(self, maps: Tensor, y: Tensor | None = None) -> Tensor:
        return self.conv(relu(normalised(self.norm, maps, y), inplace=True))


class Plain(Labelled):
    """Leaky ReLU, a convolution, dropout."""

    def __init__(self, before: int, after: int, side: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv = conv(before, after, side)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, maps: Tensor, y: Tensor | None = None) -> Tensor:
        return self.dropout(self.conv(leaky_relu(maps, SLOPE)))


class Block(Labelled):
    """Layers that each see the maps of all layers before them (equation 2): B×C×S×S to B×(C + layers × k)×S×S."""

    def __init__(self, layers: list[Labelled]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, maps: Tensor, y: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            maps = torch.cat([maps, layer(maps, y)], 1)
        return maps


class Generator(nn.Module):
    """A linear base×base map; on each level a dense block, then a 1×1 convolution and a doubled side; tanh last."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.latent = config.latent
        base, channels = pyramid(config.size, config.width)
        levels = [level(number) for number in channels]

        def block(at: Level) -> nn.Module:
            return Block([Normalised(at.given + i * at.added, at.added, 3, config.classes) for i in range(LAYERS)])

        layers: list[nn.Module] = [nn.Linear(config.latent, levels[0].given * base**2), ToMap(levels[0].given, base)]
        layers.append(block(levels[0]))
        for before, after in pairwise(levels):
            layers.append(Normalised(before.end, after.given, 1, config.classes))
            layers += [nn.Upsample(scale_factor=2, mode="nearest"), block(after)]
        end = levels[-1].end
        layers += [batch_norm(end, config.classes), nn.ReLU(inplace=True)]
        layers += [
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(end, config.channels, 3, padding=1),
            nn.Tanh(),
        ]
        self.layers = Layers(*layers)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×latent, and B labels where there are classes, to B×C×H×W in [-1, 1]."""
        return self.layers(z, y)


class Discriminator(nn.Module):
    """A strided convolution; on each level a dense block, then a halved side and a 1×1 convolution; the logit.

    Dropout, where it is asked for, leaves out whole maps after each convolution of a block.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        base, channels = pyramid(config.size, config.width)
        levels = [level(number) for number in reversed(channels)]

        def block(at: Level) -> nn.Module:
            dropout = config.dropout or 0.0
            return Block([Plain(at.given + i * at.added, at.added, 3, dropout) for i in range(LAYERS)])

        layers: list[nn.Module] = [Down(config.channels, levels[0].given, bias=True), block(levels[0])]
        for before, after in pairwise(levels):
            layers += [nn.AvgPool2d(2), Plain(before.end, after.given, 1), block(after)]
        end = levels[-1].end
        layers += [nn.LeakyReLU(SLOPE), ToVector(), Head(end * base**2, config.classes, config.outputs)]
        self.layers = Layers(*layers)

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×C×H×W in [-1, 1], and B labels where there are classes, to B logits (or B×outputs)."""
        return self.layers(images, y)


register(Architecture("densenet", Generator, Discriminator))
