"""A second-level network over several generators: it sees the images that they draw from one latent, and makes one."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from pipeline.layers.convolutional import Down, Up, initialise
from pipeline.layers.operations import operations
from pipeline.layers.refiner import BLOCKS, SLOPE, Residual


class Combiner(nn.Module):
    """Makes one image of k: Σᵢ gᵢ⊙xᵢ + c, cut off at -1 and 1, with gates gᵢ that add up to 1 at each pixel.

    Gates and correction c are put out by one residual network that works at half the side on all k images side by
    side. c starts as zero and the gates as `LEAD` to 1 for the first image: an untrained combiner nearly hands that
    one through.
    """

    LEAD = 50.0

    def __init__(self, channels: int, parts: int, width: int) -> None:
        super().__init__()
        self.parts = parts
        self.down = Down(channels * parts, width, bias=True)
        self.blocks = nn.Sequential(*(Residual(width) for _ in range(BLOCKS)))
        self.up = Up(width, parts + channels, bias=True)
        initialise(self)
        for module in self.blocks.modules():
            if isinstance(module, nn.Conv2d):
                # Without normalisation, N(0, 0.02²) would let hardly anything through.
                nn.init.kaiming_normal_(module.weight, SLOPE)
        nn.init.zeros_(self.up.weight)
        assert self.up.bias is not None
        with torch.no_grad():
            self.up.bias[0] = torch.tensor(self.LEAD).log()

    def forward(self, images: Tensor) -> Tensor:
        """Map B×k×C×H×W in [-1, 1] to B×C×H×W in [-1, 1]."""
        maps = leaky_relu(self.blocks(self.down(images.flatten(1, 2))), SLOPE)
        logits, correction = self.up(maps).tensor_split([self.parts], 1)
        combined = (logits.softmax(1)[:, :, None] * images).sum(1)
        return (combined + correction).clamp(-1, 1)


class Stack(nn.Module):
    """A generator of generators: they draw an image each from one latent, and the combiner makes one of these.

    Parts whose latents are shorter take the beginning of the shared one. Where all know classes, all are asked for the
    same; where only some do, the last number of a latent that is longer by it chooses their class, and the whole knows
    none. Only the combiner is trained.
    """

    def __init__(self, parts: Iterable[nn.Module], combiner: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.combiner = combiner
        each: list[Any] = list(self.parts)
        shares = [tuple(getattr(part, "class_shares", ())) for part in each]
        self.class_shares = shares[0] if all(shares) else ()
        self.latent = max(part.latent for part in each) + (any(shares) and not all(shares))
        self.parts.requires_grad_(False)

    @property
    def passes(self) -> float:
        """Those of all parts, and the combiner's, which counts in units of theirs by its operations."""
        device = next(self.combiner.parameters()).device
        z = torch.zeros(1, self.latent, device=device)
        y = torch.zeros(1, dtype=torch.long, device=device) if self.class_shares else None
        with torch.inference_mode():
            images = self._images(z, y)
            share = operations(lambda: self.combiner(images)) / operations(lambda: self._images(z, y))
        return (1 + share) * sum(float(getattr(part, "passes", 1.0)) for part in self.parts)

    def train(self, mode: bool = True) -> "Stack":
        """Set the combiner's mode; the parts stay in evaluation mode."""
        super().train(mode)
        self.parts.eval()
        return self

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×latent, and B labels where all parts know classes, to B×C×H×W in [-1, 1]."""
        return self.combiner(self._images(z, y))

    def _images(self, z: Tensor, y: Tensor | None) -> Tensor:
        return torch.stack([self._drawn(part, z, y) for part in self.parts], 1)

    def _drawn(self, part: Any, z: Tensor, y: Tensor | None) -> Tensor:
        shares = tuple(getattr(part, "class_shares", ()))
        if shares and y is None:
            bounds = torch.tensor(shares, dtype=torch.float64, device=z.device).cumsum(0)[:-1]
            y = torch.bucketize(torch.special.ndtr(z[:, -1].double()), bounds, right=True)
        own = z[:, : part.latent]
        return (part(own, y) if shares else part(own)).float()
