"""One training step of each kind of member. Nothing here waits for the device: losses stay tensors."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.compute import Runtime
from pipeline.training.losses import AdversarialLoss

ADVERSARIAL = ("loss_g", "loss_d", "logit_real", "logit_fake")
VARIATIONAL = ("loss", "kl", "sigma")
# Variance of the rounding to 256 levels on the [-1, 1] scale: no decoder can be surer than its data.
ROUNDING = (2 / 255) ** 2 / 12
SIGMA_MOMENTUM = 0.01


def adversarial_step(
    networks: dict[str, nn.Module],
    optimizers: dict[str, Optimizer],
    real: Tensor,
    z: Tensor,
    loss: AdversarialLoss,
    runtime: Runtime,
) -> Tensor:
    """Update the discriminator, then the generator against the updated discriminator; return `ADVERSARIAL`.

    real: B×C×H×W in [-1, 1]; z: B×latent. Both updates use the same generated images, so the generator runs once. Real
    and generated images pass the discriminator as batches of their own (batch statistics of one kind, as in DCGAN).
    """
    generator, discriminator = networks["generator"], networks["discriminator"]
    with runtime.autocasting():
        fake = generator(z)
        on_real, on_fake = discriminator(real), discriminator(fake.detach())
    on_real, on_fake = on_real.float(), on_fake.float()
    loss_d = loss.discriminator(on_real, on_fake)
    loss_d.backward()
    optimizers["discriminator"].step()
    optimizers["discriminator"].zero_grad()

    # The generator needs the gradient through the discriminator, not that of its weights: a third of its backward pass.
    discriminator.requires_grad_(False)
    with runtime.autocasting():  # a context of its own, for the last one keeps bf16 copies of the weights as they were
        judged = discriminator(fake)
    loss_g = loss.generator(judged.float())
    loss_g.backward()
    discriminator.requires_grad_(True)
    optimizers["generator"].step()
    optimizers["generator"].zero_grad()
    return torch.stack([loss_g.detach(), loss_d.detach(), on_real.detach().mean(), on_fake.detach().mean()])


def variational_step(
    networks: dict[str, nn.Module],
    optimizers: dict[str, Optimizer],
    real: Tensor,
    noise: Tensor,
    kl_weight: float,
    runtime: Runtime,
) -> Tensor:
    """Raise the evidence lower bound (Kingma, Welling 2014, equation 3); return `VARIATIONAL`.

    real: B×C×H×W in [-1, 1]; noise: B×latent, of the reparametrisation. The likelihood is Gaussian with one σ, set to
    its optimum on the batch, so that its part is D·ln σ with σ² the mean squared error (Rybkin et al. 2021, equation
    8). `loss` is the negative bound in nats for each of an image's D numbers, `kl` in nats an image.
    """
    decoder: Any = networks["generator"]
    encoder = networks["encoder"]
    with runtime.autocasting():
        mean, log_variance = encoder(real)
        mean, log_variance = mean.float(), log_variance.float()
        reconstruction = decoder.mean(mean + noise * (0.5 * log_variance).exp())
    variance = (reconstruction.float() - real).square().mean().clamp(min=ROUNDING)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()
    loss = 0.5 * (math.log(2 * math.pi) + 1 + variance.log()) + kl_weight * kl / real[0].numel()
    loss.backward()
    for optimizer in optimizers.values():
        optimizer.step()
        optimizer.zero_grad()
    sigma = variance.detach().sqrt()
    decoder.sigma.lerp_(sigma, SIGMA_MOMENTUM)
    return torch.stack([loss.detach(), kl.detach(), sigma])
