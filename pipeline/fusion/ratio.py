"""A density ratio, real over generated, as a network: extractors, and a quadratic form of their features."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.evaluation.networks import to_float
from pipeline.fusion.samplers import to_uint8


class Ratio(nn.Module):
    """The logarithm of an acceptance probability as a function of features: bias + l·z + zᵀQz with z = (f − c)B.

    extractors: names of those whose features stand side by side in f, in this order. features: D, of all of them.
    components: k, columns of B. Everything is float64, as fitted. Values above 0 count as 0: the image is accepted.
    """

    bias: Tensor
    linear: Tensor
    centre: Tensor
    basis: Tensor
    quadratic: Tensor

    def __init__(self, extractors: Sequence[str], features: int, components: int) -> None:
        super().__init__()
        self.extractors = tuple(extractors)
        shapes = {
            "bias": (),
            "linear": (components,),
            "centre": (features,),
            "basis": (features, components),
            "quadratic": (components, components),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))

    @property
    def config(self) -> dict[str, Any]:
        """What is needed to build it again, but for its buffers."""
        features, components = self.basis.shape
        return {"extractors": list(self.extractors), "features": features, "components": components}

    def forward(self, features: Tensor) -> Tensor:
        """Map float64 B×D to B."""
        z = (features - self.centre) @ self.basis
        return self.bias + z @ self.linear + ((z @ self.quadratic) * z).sum(1)


class ImageRatio(nn.Module):
    """A ratio of images: its extractors, each read once, and the form of their features.

    networks: those that `pipeline.evaluation.networks.build` makes, by the names that the ratio knows them by.
    """

    def __init__(self, ratio: Ratio, networks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.ratio = ratio
        self.networks = nn.ModuleList(networks[name] for name in ratio.extractors)

    def forward(self, images: Tensor) -> Tensor:
        """Map B×C×H×W in [-1, 1] to B float64: the logarithm of the probability to accept an image, where below 0.

        Images are rounded to whole levels first, as they are delivered, and as all that was fitted on has been.
        """
        delivered = to_float(to_uint8(images))
        return self.ratio(torch.cat([network(delivered)[0] for network in self.networks], 1).double())
