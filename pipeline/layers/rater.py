"""A network that rates latents: the logarithm of the probability with which what is drawn from one is kept."""

from itertools import pairwise

from torch import Tensor, nn

DEPTH = 3


class Rater(nn.Module):
    """Fully connected layers with SiLU, `DEPTH` of so many units, and one number out."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        sides = [inputs, *[width] * DEPTH]
        layers = [layer for before, after in pairwise(sides) for layer in (nn.Linear(before, after), nn.SiLU())]
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Linear(width, 1)

    def forward(self, latents: Tensor) -> Tensor:
        """Map B×inputs to B; values above 0 count as 0: the latent is kept."""
        return self.head(self.trunk(latents))[:, 0]
