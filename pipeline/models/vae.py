"""Convolutional variational autoencoder (Kingma, Welling 2014) with a calibrated Gaussian decoder.

One σ for all pixels, set to its optimum on each batch (Rybkin, Daniilidis, Levine 2021, "Simple and Effective VAE
Training with Calibrated Decoders"): it balances reconstruction against the latent's cost without a weight to tune. With
classes both networks know them (Sohn, Lee, Yan 2015, "Learning Structured Output Representation using Deep Conditional
Generative Models"): they normalise batches by class.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from pipeline.layers.conditional import Layers, batch_norm
from pipeline.layers.convolutional import Down, ToMap, ToVector, Up, initialise, pyramid
from pipeline.models._base import Architecture, ModelConfig, register


class Generator(nn.Module):
    """The decoder: its mean μ(z), or with `sample_noise` a draw μ + σ⊙ε whose ε is the tail of the latent.

    Buffer `sigma`: the decoder's standard deviation on the [-1, 1] scale; training keeps it up to date.
    """

    sigma: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.code = config.latent
        self.noise = config.channels * config.size**2 if config.sample_noise else 0
        self.latent = self.code + self.noise
        base, channels = pyramid(config.size, config.width)
        layers: list[nn.Module] = [
            nn.Linear(self.code, 2 * channels[0] * base**2),
            ToMap(2 * channels[0], base),
            batch_norm(2 * channels[0], config.classes),
            nn.ReLU(inplace=True),
        ]
        for before, after in zip([2 * channels[0], *channels], channels, strict=False):
            layers.append(Up(before, after))
            layers += [batch_norm(after, config.classes), nn.ReLU(inplace=True)]
        self.layers = Layers(*layers, nn.Conv2d(channels[-1], config.channels, 3, padding=1), nn.Tanh())
        initialise(self)
        self.register_buffer("sigma", torch.ones(()))

    def mean(self, code: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×code, and B labels where there are classes, to the means B×C×H×W in [-1, 1]."""
        return self.layers(code, y)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×latent, and B labels where there are classes, to B×C×H×W in [-1, 1]."""
        mean = self.mean(z[:, : self.code], y)
        if not self.noise:
            return mean
        return (mean + self.sigma * z[:, self.code :].reshape(mean.shape)).clamp(-1, 1)


class Encoder(nn.Module):
    """Strided convolutions down to the mean and log-variance of the approximate posterior."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        base, channels = pyramid(config.size, config.width)
        channels = [*channels[::-1], 2 * channels[0]]
        layers: list[nn.Module] = [
            nn.Conv2d(config.channels, channels[0], 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for before, after in pairwise(channels):
            layers.append(Down(before, after))
            layers += [batch_norm(after, config.classes), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = Layers(*layers, ToVector(), nn.Linear(channels[-1] * base**2, 2 * config.latent))
        initialise(self)

    def forward(self, images: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map B×C×H×W in [-1, 1], and B labels where there are classes, to mean and log-variance, each B×latent."""
        mean, log_variance = self.layers(images, y).chunk(2, dim=1)
        return mean, log_variance


register(Architecture("vae", Generator, encoder=Encoder, objective="variational"))
