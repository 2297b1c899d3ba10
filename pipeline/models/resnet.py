"""Residual networks of SNGAN (Miyato, Kataoka, Koyama, Yoshida 2018, "Spectral Normalization for Generative Adversarial
Networks", appendix B.4, tables 4 and 6).

`width` is the generator's number of channels at 32×32 pixels; the discriminator has half as many. Images up to 32×32
have as many on every level, as table 4 (which is width 256); larger ones double them from level to level downwards, up
to four times, and halve them upwards, as table 6. With classes the generator normalises batches by class and the
discriminator has a projection head, as in Miyato, Koyama 2018.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from pipeline.layers.conditional import Head, Labelled, Layers, batch_norm, normalised
from pipeline.layers.convolutional import BASES, ToMap, conv_halved, doubled_conv
from pipeline.models._base import Architecture, ModelConfig, register

PLAIN = 32  # largest image whose levels are equally wide
GROWTH = 4  # widest level, in units of the width
HALVINGS = 2  # of the discriminator, for plain images
GAIN = 2**0.5  # of the initial 3×3 convolutions, which follow a ReLU


def channels_at(side: int, size: int, width: int) -> int:
    """Return a level's number of channels, in units where the level of 32×32 pixels has `width`."""
    if size <= PLAIN:
        return width
    return max(1, min(width * PLAIN // side, GROWTH * width))


def conv(before: int, after: int, side: int, gain: float = 1.0) -> nn.Conv2d:
    """Return a side×side convolution that keeps the maps' size, with Glorot's uniform weights times `gain`."""
    layer = nn.Conv2d(before, after, side, padding=side // 2)
    nn.init.xavier_uniform_(layer.weight, gain)
    return layer


class UpBlock(Labelled):
    """Residual block of the generator that doubles the side: B×before×S×S to B×after×2S×2S.

    Upsampling and the first convolution are one (`doubled_conv`). The shortcut's 1×1 convolution comes before its
    upsampling: the two commute, and so it costs a quarter.
    """

    def __init__(self, before: int, after: int, classes: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = batch_norm(before, classes), batch_norm(after, classes)
        self.conv1, self.conv2 = conv(before, after, 3, GAIN), conv(after, after, 3, GAIN)
        self.shortcut = conv(before, after, 1)

    def forward(self, maps: Tensor, y: Tensor | None = None) -> Tensor:
        inner = doubled_conv(self.conv1, relu(normalised(self.norm1, maps, y), inplace=True))
        inner = self.conv2(relu(normalised(self.norm2, inner, y), inplace=True))
        return inner + double(self.shortcut(maps))


class DownBlock(nn.Module):
    """Residual block of the discriminator: B×before×S×S to B×after×S×S, or to half the side with `halve`.

    first: on images, so without the ReLU in front. The second convolution and its pooling are one (`conv_halved`). The
    shortcut is pooled before its 1×1 convolution: the two commute, and so it costs a quarter.
    """

    def __init__(self, before: int, after: int, halve: bool, dropout: float, first: bool = False) -> None:
        super().__init__()
        self.halve, self.first = halve, first
        self.conv1, self.conv2 = conv(before, after, 3, GAIN), conv(after, after, 3, GAIN)
        self.dropout = nn.Dropout2d(dropout)
        self.shortcut = conv(before, after, 1) if halve or before != after else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.conv1(maps if self.first else relu(maps))
        inner = self.dropout(relu(inner, inplace=True))
        if self.halve:
            return conv_halved(self.conv2, inner) + self.shortcut(avg_pool2d(maps, 2))
        return self.conv2(inner) + self.shortcut(maps)


def double(maps: Tensor) -> Tensor:
    """Repeat each pixel: B×C×S×S to B×C×2S×2S."""
    return interpolate(maps, scale_factor=2, mode="nearest")


class Generator(nn.Module):
    """A linear base×base map, blocks that double it up to the image, batch norm, ReLU, a 3×3 convolution, tanh."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.latent = config.latent
        base = BASES[config.size]
        sides = [base << level for level in range((config.size // base).bit_length())]
        widths = [channels_at(side, config.size, config.width) for side in sides]
        layers: list[nn.Module] = [nn.Linear(config.latent, widths[0] * base**2), ToMap(widths[0], base)]
        layers += [UpBlock(before, after, config.classes) for before, after in pairwise(widths)]
        layers += [batch_norm(widths[-1], config.classes), nn.ReLU(inplace=True)]
        layers += [conv(widths[-1], config.channels, 3), nn.Tanh()]
        self.layers = Layers(*layers)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×latent, and B labels where there are classes, to B×C×H×W in [-1, 1]."""
        return self.layers(z, y)


class Discriminator(nn.Module):
    """Residual blocks, halving ones first, ReLU, the sum over all places, the logit; dropout inside the blocks.

    Without spectral normalisation nothing bounds the sum, and the mean takes its place.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.sums = config.spectral_norm
        sides = [config.size >> level for level in range((config.size // BASES[config.size]).bit_length() - 1)]
        if config.size <= PLAIN:
            halving = [max(1, config.width // 2)] * min(len(sides), HALVINGS)
            keeping = halving[:1] * 2
        else:
            halving = [channels_at(side, config.size, config.width) for side in sides]
            keeping = halving[-1:]
        widths = [config.channels, *halving, *keeping]
        blocks = [
            DownBlock(before, after, halve=i < len(halving), dropout=config.dropout or 0.0, first=i == 0)
            for i, (before, after) in enumerate(pairwise(widths))
        ]
        self.layers = nn.Sequential(*blocks, nn.ReLU(inplace=True))
        self.head = Head(widths[-1], config.classes, config.outputs)

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×C×H×W in [-1, 1], and B labels where there are classes, to B logits (or B×outputs)."""
        maps = self.layers(images)
        return self.head(maps.sum((2, 3)) if self.sums else maps.mean((2, 3)), y)


register(Architecture("resnet", Generator, Discriminator))
