"""Autoencoder whose images a discriminator compares (Larsen, Sønderby, Larochelle, Winther 2016, "Autoencoding beyond
pixels using a learned similarity metric"): dcgan's two networks, and vae's encoder.

Pixels that are averaged over all images that fit blur; a discriminator's features do not.
"""

from torch import Tensor

from pipeline.models import dcgan
from pipeline.models._base import Architecture, ModelConfig, register
from pipeline.models.vae import Encoder


class Discriminator(dcgan.Discriminator):
    """dcgan's discriminator, which also shows the features that its logit comes from."""

    def features(self, images: Tensor) -> Tensor:
        """Map B×C×H×W in [-1, 1] to its last maps, flat: B×F."""
        return self.layers[:-1](images)


def encoder(config: ModelConfig) -> Encoder:
    """Build vae's encoder."""
    return Encoder(config)


register(Architecture("vaegan", dcgan.Generator, Discriminator, encoder, objective="similarity"))
