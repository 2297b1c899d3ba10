"""Fully connected GAN (Goodfellow et al. 2014), with leaky ReLU and dropout as is usual since.

With classes its generator takes an embedding of the class beside the latent (Mirza, Osindero 2014, "Conditional
Generative Adversarial Nets") and its discriminator has a projection head (Miyato, Koyama 2018).
"""

import math
from itertools import pairwise

from torch import Tensor, nn

from pipeline.layers.conditional import Head, Join, Layers
from pipeline.models._base import Architecture, ModelConfig, register

DROPOUT = 0.3


def units(config: ModelConfig) -> list[int]:
    """Sizes of the generator's hidden layers: 256, 512, 1024 at width 64, in proportion at other widths."""
    return [config.width * factor for factor in (4, 8, 16)]


class Generator(nn.Module):
    """Latent → 256 → 512 → 1024 → pixels (at width 64), leaky ReLU between, tanh last."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.latent = config.latent
        self.shape = (config.channels, config.size, config.size)
        self.join = Join(config.latent, config.classes)
        sizes = [self.join.length, *units(config)]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], math.prod(self.shape)), nn.Tanh())

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×latent, and B labels where there are classes, to B×C×H×W in [-1, 1]."""
        return self.layers(self.join(z, y)).unflatten(1, self.shape)


class Discriminator(nn.Module):
    """Pixels → 1024 → 512 → 256 → the logit (at width 64), leaky ReLU and dropout (0.3) after each hidden layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dropout = DROPOUT if config.dropout is None else config.dropout
        sizes = [config.channels * config.size**2, *reversed(units(config))]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.2, inplace=True), nn.Dropout(dropout)]
        self.layers = Layers(*layers, Head(sizes[-1], config.classes, config.outputs))

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×C×H×W in [-1, 1], and B labels where there are classes, to B logits (or B×outputs)."""
        return self.layers(images, y)


register(Architecture("mlp", Generator, Discriminator))
