"""Generators made of generators: what schemes deliver. Files name them; `params.yaml` cannot ask for them."""

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.layers.combiner import Combiner, Stack
from pipeline.layers.discriminator import Convolutional
from pipeline.layers.refiner import Refiner
from pipeline.models._base import Architecture, ModelConfig, architecture, build_generator, register


class Mixture(nn.Module):
    """Each image comes from one of the parts, which the first number of the latent chooses.

    Φ(z₀) is uniform on [0, 1] (Φ: the normal distribution's cumulative function), so that part k, which owns a stretch
    of length `weights[k]`, is chosen as often as its weight says. The part's own latent follows z₀. Only parts that are
    chosen run. `passes`: those of a part, on average.
    """

    bounds: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.shape = (config.channels, config.size, config.size)
        self.parts = nn.ModuleList(build_generator(part) for part in config.parts)
        parts: list[Any] = list(self.parts)
        self.latent = 1 + max(part.latent for part in parts)
        weights = torch.tensor(config.weights, dtype=torch.float64)
        weights /= weights.sum()
        self.passes = sum(w * getattr(part, "passes", 1.0) for w, part in zip(weights.tolist(), parts, strict=True))
        self.register_buffer("bounds", weights.cumsum(0)[:-1], persistent=False)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×latent to B×C×H×W in [-1, 1]; image i depends on row i of `z` and `y` alone."""
        choice = torch.bucketize(torch.special.ndtr(z[:, 0].double()), self.bounds, right=True)
        images = z.new_empty(len(z), *self.shape)
        for index, part in enumerate(self.parts):
            rows = (choice == index).nonzero().flatten()
            if len(rows):
                own: Any = part.latent
                drawn = part(z[rows, 1 : 1 + own], None if y is None else y[rows])
                images[rows] = drawn.to(images.dtype)
        return images


class Cascade(nn.Module):
    """A generator whose images refiners correct one after another: Gₙ(…G₂(G₁(z))).

    `parts` of the configuration: the first generator's, then one for each refiner. Only the last refiner is trained:
    all before it stay in evaluation mode and have no gradients. `passes`: a refiner counts as one.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        first, *later = config.parts
        self.first = build_generator(first)
        self.refiners = nn.ModuleList(Refiner(part) for part in later)
        source: Any = self.first
        self.latent = source.latent
        self.passes = getattr(source, "passes", 1.0) + len(later)
        for module in self._frozen():
            module.requires_grad_(False)

    def _frozen(self) -> list[nn.Module]:
        return [self.first, *self.refiners[:-1]]

    def train(self, mode: bool = True) -> "Cascade":
        """Set the mode of the last refiner; the parts before it stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen():
            module.eval()
        return self

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×latent to B×C×H×W in [-1, 1]."""
        images = self.first(z, y)
        for refiner in self.refiners:
            images = refiner(images, y)
        return images


def discriminator(config: ModelConfig) -> nn.Module:
    """Build a cascade's discriminator: one of the kind that its first part was trained against."""
    build = architecture(config.parts[0].architecture).discriminator
    assert build is not None
    return build(config)


def stack(config: ModelConfig) -> Stack:
    """Build the generators that `parts` of the configuration describe, and a combiner of `width` over them."""
    parts = [build_generator(part) for part in config.parts]
    return Stack(parts, Combiner(config.channels, len(parts), config.width))


register(Architecture("mixture", Mixture))
register(Architecture("cascade", Cascade, discriminator))
register(Architecture("stack", stack, Convolutional))
