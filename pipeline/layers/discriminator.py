"""DCGAN's discriminator (Radford, Metz, Chintala 2016), which several architectures are trained against."""

from itertools import pairwise

from torch import Tensor, nn

from pipeline.layers.conditional import Head, Layers
from pipeline.layers.convolutional import Down, ToVector, initialise, pyramid
from pipeline.models._base import ModelConfig


class Convolutional(nn.Module):
    """Strided convolutions from the image down to the logit; no batch normalisation on the first layer.

    With spectral normalisation there is none on the others either: it would undo the bound on the layers' slope (Miyato
    et al. 2018, table 3). Nor with a penalty on the gradient at an image, which through batch statistics would be that
    of the whole batch (Gulrajani et al. 2017, section 4). Dropout, where it is asked for, leaves out whole maps after
    each activation but the last (Tompson et al. 2015).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        base, channels = pyramid(config.size, config.width)
        channels = channels[::-1]
        plain = config.spectral_norm or config.penalised
        layers: list[nn.Module] = [Down(config.channels, channels[0], bias=True)]
        for before, after in pairwise(channels):
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            if config.dropout:
                layers.append(nn.Dropout2d(config.dropout))
            layers += [Down(before, after, bias=True)] if plain else [Down(before, after), nn.BatchNorm2d(after)]
        layers += [nn.LeakyReLU(0.2, inplace=True), ToVector()]
        layers.append(Head(channels[-1] * base**2, config.classes, config.outputs))
        self.layers = Layers(*layers)
        initialise(self)
        for module in self.modules():
            if plain and isinstance(module, nn.Conv2d):
                # Without normalisation, N(0, 0.02²) would let hardly anything through.
                nn.init.kaiming_normal_(module.weight, 0.2)

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×C×H×W in [-1, 1], and B labels where there are classes, to B logits (or B×outputs)."""
        return self.layers(images, y)
