"""Layers that know the class: batch normalisation by class, the projection head, and sequences that carry labels.

Without classes each of them is the plain layer, with the plain layer's parameters, names and initial draws.
"""

import torch
from torch import Tensor, nn


class Labelled(nn.Module):
    """Marks a layer whose `forward` takes the labels as its second argument."""


class Layers(nn.Sequential):
    """Layers one after another, of which the labelled ones are given the labels (B int64, None: no classes)."""

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        for layer in self:
            x = layer(x, y) if isinstance(layer, Labelled) else layer(x)
        return x


class ClassNorm(Labelled):
    """Batch normalisation with a gain and a bias for each class: B×C×H×W and B labels to B×C×H×W.

    Conditional batch normalisation of Dumoulin, Shlens, Kudlur 2017, equation 5, and de Vries et al. 2017, section 3.1.
    All classes start at gain 1 and bias 0.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = nn.Embedding.from_pretrained(torch.ones(classes, channels), freeze=False)
        self.bias = nn.Embedding.from_pretrained(torch.zeros(classes, channels), freeze=False)

    def forward(self, maps: Tensor, y: Tensor | None = None) -> Tensor:
        maps = self.norm(maps)
        gain, bias = (table(y).to(maps.dtype)[:, :, None, None] for table in (self.gain, self.bias))
        return maps * gain + bias


def batch_norm(channels: int, classes: int) -> nn.Module:
    """Return batch normalisation by class, or the plain one where there are none."""
    return ClassNorm(channels, classes) if classes else nn.BatchNorm2d(channels)


def normalised(norm: nn.Module, maps: Tensor, y: Tensor | None) -> Tensor:
    """Normalise, by class where there are classes."""
    return norm(maps, y) if isinstance(norm, Labelled) else norm(maps)


class Head(nn.Linear, Labelled):
    """A discriminator's last layer: features h, B×F, and B labels to B logits, or to B×outputs where it has several.

    The logit is a linear one plus the inner product of h with an embedding of the class (Miyato, Koyama 2018, "cGANs
    with Projection Discriminator", equation 3); each output has embeddings of its own. Without labels the linear part
    stands alone: it judges the image whatever its class.
    """

    def __init__(self, features: int, classes: int = 0, outputs: int = 1) -> None:
        super().__init__(features, outputs)
        self.embedding = nn.Embedding(classes, outputs * features) if classes else None
        if self.embedding is not None:
            nn.init.uniform_(self.embedding.weight, -(features**-0.5), features**-0.5)  # as nn.Linear draws its weight

    def forward(self, h: Tensor, y: Tensor | None = None) -> Tensor:
        logits = super().forward(h)
        if self.embedding is not None and y is not None:
            logits = logits + (self.embedding(y).unflatten(1, (self.out_features, -1)) * h[:, None]).sum(2)
        return logits.flatten() if self.out_features == 1 else logits


class Join(nn.Module):
    """Puts an embedding of the class beside the latent: B×Z and B labels to B×`length`; without classes B×Z.

    Both are equally long and normally distributed at the start (Mirza, Osindero 2014, "Conditional Generative
    Adversarial Nets", section 3.2, with a learned embedding for the one-hot label).
    """

    def __init__(self, latent: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, latent) if classes else None
        self.length = 2 * latent if classes else latent

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return z if self.embedding is None else torch.cat([z, self.embedding(y)], 1)
