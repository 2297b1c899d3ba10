"""Deep convolutional GAN (Radford, Metz, Chintala 2016, "Unsupervised Representation Learning with DCGAN").

With classes its generator normalises batches by class and its discriminator a projection head (Miyato, Koyama 2018).
"""

from pipeline.layers import discriminator, generator
from pipeline.models._base import Architecture, register

register(Architecture("dcgan", generator.Convolutional, discriminator.Convolutional))
