"""Autoencoder whose images a discriminator compares (Larsen, Sønderby, Larochelle, Winther 2016, "Autoencoding beyond
pixels using a learned similarity metric"), of dcgan's networks.

Pixels that are averaged over all images that fit blur; a discriminator's features do not.
"""

from dataclasses import replace

from torch import Tensor, nn

from pipeline.layers import discriminator, generator
from pipeline.models._base import Architecture, ModelConfig, register


class Discriminator(discriminator.Convolutional):
    """dcgan's discriminator, which also shows the features that its logit comes from."""

    def features(self, images: Tensor) -> Tensor:
        """Map B×C×H×W in [-1, 1] to its last maps, flat: B×F."""
        return self.layers[:-1](images)


class Encoder(nn.Module):
    """dcgan's discriminator with two numbers for each of the latent's in place of the logit; it needs no class."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.network = discriminator.Convolutional(
            replace(config, outputs=2 * config.latent, dropout=None, class_shares=())
        )

    def forward(self, images: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map B×C×H×W in [-1, 1] to the mean and the log-variance, each B×latent."""
        mean, log_variance = self.network(images).chunk(2, dim=1)
        return mean, log_variance


register(Architecture("vaegan", generator.Convolutional, Discriminator, Encoder, objective="similarity"))
