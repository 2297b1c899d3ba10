"""Dense blocks in the generator and in the discriminator (Huang, Liu, van der Maaten, Weinberger 2017, "Densely
Connected Convolutional Networks").

Blocks lie on the levels of `pyramid`, the largest at half the image's side, where a strided convolution begins, as
their networks for large images do. A level's block adds as many channels as it is given.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, relu

from pipeline.layers.conditional import Head, Labelled, Layers, batch_norm
from pipeline.layers.convolutional import Down, ToMap, ToVector, Up, pyramid
from pipeline.models._base import Architecture, ModelConfig, register

LAYERS = 4  # of a block; each adds a quarter of the block's input
SLOPE = 0.2


def growth(channels: int) -> int:
    """Return how many channels each layer of a block adds to `channels` (their k, here a share of the level's)."""
    return max(1, channels // LAYERS)


def grown(channels: int) -> int:
    """Return the number of channels after a block."""
    return channels + LAYERS * growth(channels)


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
        maps = self.norm(maps, y) if isinstance(self.norm, Labelled) else self.norm(maps)
        return self.conv(relu(maps, inplace=True))


class Plain(Labelled):
    """Leaky ReLU and a convolution, without normalisation: penalties want each image judged alone."""

    def __init__(self, before: int, after: int, side: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv = conv(before, after, side)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, maps: Tensor, y: Tensor | None = None) -> Tensor:
        return self.dropout(self.conv(leaky_relu(maps, SLOPE)))


class Block(Labelled):
    """Layers that each see the maps of all layers before them (equation 2): B×C×S×S to B×2C×S×S."""

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
        layers: list[nn.Module] = [nn.Linear(config.latent, channels[0] * base**2), ToMap(channels[0], base)]
        for before, after in zip(channels, [*channels[1:], channels[-1]], strict=True):
            step = growth(before)
            layers.append(Block([Normalised(before + i * step, step, 3, config.classes) for i in range(LAYERS)]))
            layers.append(Normalised(grown(before), after, 1, config.classes))
            layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
        layers.pop()
        layers += [batch_norm(channels[-1], config.classes), nn.ReLU(inplace=True)]
        layers += [Up(channels[-1], config.channels, bias=True), nn.Tanh()]
        self.layers = Layers(*layers)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×latent, and B labels where there are classes, to B×C×H×W in [-1, 1]."""
        return self.layers(z, y)


class Discriminator(nn.Module):
    """A strided convolution; on each level a dense block, then a 1×1 convolution and a halved side; the logit."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        base, channels = pyramid(config.size, config.width)
        channels = channels[::-1]
        layers: list[nn.Module] = [Down(config.channels, channels[0], bias=True)]
        for before, after in zip(channels, [*channels[1:], channels[-1]], strict=True):
            step = growth(before)
            layers.append(Block([Plain(before + i * step, step, 3, config.dropout or 0.0) for i in range(LAYERS)]))
            layers.append(nn.AvgPool2d(2))
            layers.append(Plain(grown(before), after, 1))
        layers.pop(-2)
        layers += [nn.LeakyReLU(SLOPE), ToVector(), Head(channels[-1] * base**2, config.classes, config.outputs)]
        self.layers = Layers(*layers)

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×C×H×W in [-1, 1], and B labels where there are classes, to B logits (or B×outputs)."""
        return self.layers(images, y)


register(Architecture("densenet", Generator, Discriminator))
