"""Fully connected GAN (Goodfellow et al. 2014), with leaky ReLU and dropout as is usual since."""

import math
from itertools import pairwise

from torch import Tensor, nn

from pipeline.models._base import Architecture, ModelConfig, register


def units(config: ModelConfig) -> list[int]:
    """Sizes of the generator's hidden layers: 256, 512, 1024 at width 64, in proportion at other widths."""
    return [config.width * factor for factor in (4, 8, 16)]


class Generator(nn.Module):
    """Latent → 256 → 512 → 1024 → pixels (at width 64), leaky ReLU between, tanh last."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.latent = config.latent
        self.shape = (config.channels, config.size, config.size)
        sizes = [config.latent, *units(config)]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], math.prod(self.shape)), nn.Tanh())

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×latent to B×C×H×W in [-1, 1]; `y` is ignored."""
        return self.layers(z).unflatten(1, self.shape)


class Discriminator(nn.Module):
    """Pixels → 1024 → 512 → 256 → one logit (at width 64), leaky ReLU and dropout 0.3 after each hidden layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        sizes = [config.channels * config.size**2, *reversed(units(config))]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.2, inplace=True), nn.Dropout(0.3)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×C×H×W in [-1, 1] to B logits."""
        return self.layers(images).flatten()


register(Architecture("mlp", Generator, Discriminator))
