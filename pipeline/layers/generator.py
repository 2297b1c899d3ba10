"""DCGAN's generator, which others take over as it is."""

from itertools import pairwise

from torch import Tensor, nn

from pipeline.layers.conditional import Layers, batch_norm
from pipeline.layers.convolutional import ToMap, Up, initialise, pyramid
from pipeline.models._base import ModelConfig


class Convolutional(nn.Module):
    """Transposed convolutions from a base×base map up to the image; batch normalisation and ReLU between, tanh last."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.latent = config.latent
        base, channels = pyramid(config.size, config.width)
        layers: list[nn.Module] = [nn.Linear(config.latent, channels[0] * base**2, bias=False)]
        layers.append(ToMap(channels[0], base))
        for before, after in pairwise(channels):
            layers += [batch_norm(before, config.classes), nn.ReLU(inplace=True)]
            layers.append(Up(before, after))
        layers += [batch_norm(channels[-1], config.classes), nn.ReLU(inplace=True)]
        layers += [Up(channels[-1], config.channels, bias=True), nn.Tanh()]
        self.layers = Layers(*layers)
        initialise(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×latent, and B labels where there are classes, to B×C×H×W in [-1, 1]."""
        return self.layers(z, y)
