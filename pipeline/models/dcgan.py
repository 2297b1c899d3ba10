"""Deep convolutional GAN (Radford, Metz, Chintala 2016, "Unsupervised Representation Learning with DCGAN")."""

from itertools import pairwise

from torch import Tensor, nn

from pipeline.models._base import Architecture, ModelConfig, register
from pipeline.models._convolutional import Down, ToMap, ToVector, Up, initialise, pyramid


class Generator(nn.Module):
    """Transposed convolutions from a base×base map up to the image; batch normalisation and ReLU between, tanh last."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.latent = config.latent
        base, channels = pyramid(config.size, config.width)
        layers: list[nn.Module] = [nn.Linear(config.latent, channels[0] * base**2, bias=False)]
        layers.append(ToMap(channels[0], base))
        for before, after in pairwise(channels):
            layers += [nn.BatchNorm2d(before), nn.ReLU(inplace=True)]
            layers.append(Up(before, after))
        layers += [nn.BatchNorm2d(channels[-1]), nn.ReLU(inplace=True)]
        layers += [Up(channels[-1], config.channels, bias=True), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        initialise(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×latent to B×C×H×W in [-1, 1]; `y` is ignored."""
        return self.layers(z)


class Discriminator(nn.Module):
    """Strided convolutions from the image down to one logit; no batch normalisation on the first layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        base, channels = pyramid(config.size, config.width)
        channels = channels[::-1]
        layers: list[nn.Module] = [Down(config.channels, channels[0], bias=True)]
        for before, after in pairwise(channels):
            layers += [nn.LeakyReLU(0.2, inplace=True), Down(before, after)]
            layers.append(nn.BatchNorm2d(after))
        layers += [nn.LeakyReLU(0.2, inplace=True), ToVector(), nn.Linear(channels[-1] * base**2, 1)]
        self.layers = nn.Sequential(*layers)
        initialise(self)

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×C×H×W in [-1, 1] to B logits."""
        return self.layers(images).flatten()


register(Architecture("dcgan", Generator, Discriminator))
