"""Deep convolutional GAN (Radford, Metz, Chintala 2016, "Unsupervised Representation Learning with DCGAN").

With classes its generator normalises batches by class and its discriminator a projection head (Miyato, Koyama 2018).
"""

from itertools import pairwise

from torch import Tensor, nn

from pipeline.layers.conditional import Head, Layers, batch_norm
from pipeline.layers.convolutional import Down, ToMap, ToVector, Up, initialise, pyramid
from pipeline.models._base import Architecture, ModelConfig, register


class Generator(nn.Module):
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


class Discriminator(nn.Module):
    """Strided convolutions from the image down to the logit; no batch normalisation on the first layer.

    Dropout, where it is asked for, leaves out whole maps after each activation but the last (Tompson et al. 2015).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        base, channels = pyramid(config.size, config.width)
        channels = channels[::-1]
        layers: list[nn.Module] = [Down(config.channels, channels[0], bias=True)]
        for before, after in pairwise(channels):
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            if config.dropout:
                layers.append(nn.Dropout2d(config.dropout))
            layers += [Down(before, after), nn.BatchNorm2d(after)]
        layers += [nn.LeakyReLU(0.2, inplace=True), ToVector()]
        layers.append(Head(channels[-1] * base**2, config.classes, config.outputs))
        self.layers = Layers(*layers)
        initialise(self)

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×C×H×W in [-1, 1], and B labels where there are classes, to B logits (or B×outputs)."""
        return self.layers(images, y)


register(Architecture("dcgan", Generator, Discriminator))
