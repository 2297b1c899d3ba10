"""Refinement in latent space: latents walk to where the critic finds the generator's images more real."""

from functools import cached_property

import torch
from torch import Tensor

from pipeline.fusion.critic import FusedCritic
from pipeline.fusion.samplers import BLOCK, CandidateSampler, Sampler, classes_of, indexed, latents, passes_of
from pipeline.randomness import generator

BACKWARD = 1  # passes that a gradient counts as: that of frozen weights is taken for the inputs alone


class RefineSampler(Sampler):
    """Images of one generator at latents that were refined by Langevin dynamics.

    Discriminator-driven latent sampling (Che et al. 2020, "Your GAN is Secretly an Energy-based Model and You Should
    Use Discriminator Driven Latent Sampling", algorithm 1). The energy is E(z) = |z|²/2 - d(G(z)), with d the critic's
    log-odds that an image is real. From z that the prior draws, z ← z - ε/2 ∇E(z) + √ε n with n standard normal. With d
    the log density ratio of real images to those of G the walk would end at real ones.
    """

    def __init__(self, source: CandidateSampler, critic: FusedCritic, steps: int, step_size: float) -> None:
        self.source, self.critic = source, critic
        self.steps, self.step_size = steps, step_size
        self.classes = source.classes

    @property
    def cost(self) -> float:
        return self.source.cost + self.steps * (1 + BACKWARD) * (self.source.cost + self.judging_cost)

    @cached_property
    def judging_cost(self) -> float:
        """Operations of the critic's pass over those of a generator's pass."""
        return passes_of(self.critic, self.source)

    def at(self, rows: Tensor, seed: int, labels: Tensor | None = None) -> Tensor:
        z = latents(rows, self.source.latent, seed)
        y = classes_of(rows, self.source.shares, seed) if labels is None else labels
        for step in range(self.steps):
            drift = torch.cat(
                [
                    self.gradient(some, None if y is None else y[place])
                    for place, some in zip(torch.arange(len(z)).split(BLOCK), z.split(BLOCK), strict=True)
                ]
            )
            ahead = z - self.step_size / 2 * drift + self.step_size**0.5 * self.noise(rows, seed, step)
            # Where a discriminator has no finite gradient the latent stays: no number would be no image.
            z = torch.where(ahead.isfinite().all(1, keepdim=True), ahead, z)
        return self.source.images(z, y)

    def noise(self, rows: Tensor, seed: int, step: int) -> Tensor:
        """Return the normal numbers of one step, B×latent; row i's depend on (seed, i, step) alone."""
        length = self.source.latent

        def draw_block(block: int) -> Tensor:
            return torch.randn(BLOCK, length, generator=generator(seed, "langevin", step, block))

        return indexed(rows, draw_block)

    def gradient(self, z: Tensor, y: Tensor | None) -> Tensor:
        """Return ∇E at latents B×Z (and classes B, where the generator knows any), on the CPU.

        The critic judges each image by itself, so the gradient of the sum is each one's own.
        """
        device = self.source.device
        with torch.inference_mode(False), torch.enable_grad():
            z = z.clone().to(device).requires_grad_()
            images = self.source.network(z) if y is None else self.source.network(z, y.clone().to(device))
            energy = z.square().sum() / 2 - self.critic(images).sum()
            (gradient,) = torch.autograd.grad(energy, z)
        return gradient.cpu()
