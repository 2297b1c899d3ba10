"""A variational autoencoder's evidence lower bound (Kingma, Welling 2014) with a calibrated Gaussian decoder."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.compute import Runtime
from pipeline.models._base import ModelConfig, architecture, build_generator
from pipeline.params import Family
from pipeline.training.objectives._base import Batch, Objective, register
from pipeline.training.state import State

# Variance of the rounding to 256 levels on the [-1, 1] scale: no decoder can be surer than its data.
ROUNDING = (2 / 255) ** 2 / 12
SIGMA_MOMENTUM = 0.01
BATCH = (-4, -3, -2, -1)  # dimensions of a batch of images


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, variance) ‖ N(0, 1)) of …×B×Z parameters in nats, its mean over the batch (appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1).mean(-1)


@register("variational")
class Variational(Objective):
    """Raises the evidence lower bound (Kingma, Welling 2014, equation 3).

    The likelihood is Gaussian with one σ, set to its optimum on the batch, so that its part is D·ln σ with σ² the mean
    squared error (Rybkin et al. 2021, equation 8). `loss` is the negative bound in nats for each of an image's D
    numbers, `kl` in nats an image.
    """

    kind = "vae"
    loss = "elbo"
    columns = ("loss", "kl", "sigma")
    updates = (("generator", "encoder"),)

    def __init__(self, family: Family, config: ModelConfig, runtime: Runtime) -> None:
        super().__init__(family, config, runtime)
        self.kl_weight = 1.0 if family.kl_weight is None else family.kl_weight

    def networks(self) -> dict[str, nn.Module]:
        encoder = architecture(self.config.architecture).encoder
        assert encoder is not None
        return {"generator": build_generator(self.config), "encoder": encoder(self.config)}

    def step(self, state: State, batch: Batch) -> Tensor:
        real, labels = batch.real, batch.labels
        decoder: Any = state.networks["generator"]
        with self.runtime.autocasting():
            mean, log_variance = state.networks["encoder"](real, labels)
            mean, log_variance = mean.float(), log_variance.float()
            reconstruction = decoder.mean(mean + batch.z * (0.5 * log_variance).exp(), labels)
        variance = (reconstruction.float() - real).square().mean(BATCH).clamp(min=ROUNDING)
        kl = divergence(mean, log_variance)
        loss = 0.5 * (math.log(2 * math.pi) + 1 + variance.log()) + self.kl_weight * kl / math.prod(real.shape[-3:])
        loss.sum().backward()
        for optimizer in state.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        sigma = variance.detach().sqrt()
        decoder.sigma.lerp_(sigma, SIGMA_MOMENTUM)
        return torch.stack([loss.detach(), kl.detach(), sigma], -1)
