"""Flow matching (Lipman, Chen, Ben-Hamu, Nickel, Le 2023, "Flow Matching for Generative Modeling").

A network learns the velocity that carries noise at t = 0 to images at t = 1; a generator integrates it.
"""

import torch
from torch import Tensor

from pipeline.layers.unet import UNet
from pipeline.models._base import Architecture, ModelConfig, register

STEPS = 10


class Generator(UNet):
    """Integrates dx/dt = v(x, t) from t = 0 to 1 with Heun's method in equal steps.

    latent: channels × size², the noise to start from; the configured one has no meaning. passes: of the network for one
    image, two a step.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.channels, config.size, config.width, config.classes)
        self.shape = (config.channels, config.size, config.size)
        self.latent = config.channels * config.size**2
        self.steps = config.sampling_steps or STEPS
        self.passes = 2.0 * self.steps

    def velocity(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Map images B×C×S×S, times B in [0, 1] and labels B to velocities B×C×S×S."""
        return super().forward(x, t, y)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """Map B×latent to B×C×H×W in [-1, 1]; `y` (B int64) is needed where the model knows classes."""
        x = z.unflatten(1, self.shape)
        length = 1 / self.steps
        for step in range(self.steps):
            now = torch.full((z.shape[0],), step * length, device=z.device)
            slope = self.velocity(x, now, y)
            ahead = self.velocity(x + length * slope, now + length, y)
            x = x + 0.5 * length * (slope + ahead)
        return x.clamp(-1, 1)


register(Architecture("flow", Generator, objective="matching"))
