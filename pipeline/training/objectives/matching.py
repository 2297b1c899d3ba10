"""Flow matching along straight paths (Lipman et al. 2023, "Flow Matching for Generative Modeling")."""

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.models._base import build_generator
from pipeline.training.objectives._base import Batch, Objective, register
from pipeline.training.state import State


@register("matching")
class Matching(Objective):
    """Conditional flow matching with the optimal transport path (Lipman et al. 2023, equations 22 and 23, σ_min = 0).

    An image x₁ and noise x₀ are joined by x_t = (1 - t) x₀ + t x₁; the network learns E‖v(x_t, t) - (x₁ - x₀)‖², here
    the mean over an image's numbers.
    """

    kind = "flow"
    loss = "flow_matching"
    columns = ("loss",)
    updates = (("generator",),)

    @property
    def noise(self) -> int:
        return self.config.channels * self.config.size**2

    def networks(self) -> dict[str, nn.Module]:
        return {"generator": build_generator(self.config)}

    def step(self, state: State, batch: Batch) -> Tensor:
        generator: Any = state.networks["generator"]
        noise = batch.z.reshape(batch.real.shape)
        shape, device = noise.shape[:-3], noise.device
        n = shape[-1]
        # One time in each of n equal stretches: uniform as a whole, and the loss varies less from step to step.
        t = (torch.arange(n, device=device) + torch.rand(shape, device=device)) / n
        target = batch.real - noise
        with self.runtime.autocasting():
            velocity = generator.velocity(noise + t[..., None, None, None] * target, t, batch.labels)
        loss = (velocity.float() - target).square().mean((-4, -3, -2, -1))
        loss.sum().backward()
        state.optimizers["generator"].step()
        state.optimizers["generator"].zero_grad()
        return loss.detach()[..., None]
