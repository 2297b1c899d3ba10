"""What holds a discriminator back: penalties on its gradient at images, and clipped weights.

A penalty maps (critic, real, fake, labels) to its mean over the batch. critic: maps images and labels to logits, one
an image. real, fake: B×C×H×W float; of stacked replicas R×B×C×H×W, and then a penalty has R values. Adding one here
and to `params.Regularisers` is all that a new one takes.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.params import Regularisers

Critic = Callable[[Tensor, Tensor | None], Tensor]
Penalty = Callable[[Critic, Tensor, Tensor, Tensor | None], Tensor]
IMAGE = (-3, -2, -1)  # dimensions of one image


def gradient(critic: Critic, images: Tensor, labels: Tensor | None) -> Tensor:
    """Return the gradient of each image's logit with respect to the image, itself differentiable."""
    images = images.detach().requires_grad_()
    # Seen through a view: torch's counter of operations follows no gradient to a leaf that a module was given.
    logits = critic(images.view_as(images), labels)
    return torch.autograd.grad(logits.sum(), images, create_graph=True)[0]


def r1(critic: Critic, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor:
    """½E[||∇D(x)||²] at real images, equation 9 of Mescheder, Geiger, Nowozin 2018 without its γ."""
    return 0.5 * gradient(critic, real, labels).square().sum(IMAGE).mean(-1)


def r2(critic: Critic, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor:
    """½E[||∇D(G(z))||²] at generated images, equation 10 of Mescheder, Geiger, Nowozin 2018 without its γ."""
    return r1(critic, fake, real, labels)


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, labels: Tensor | None) -> Tensor:
    """E[(||∇D(x̂)|| - 1)²], x̂ = εx + (1 - ε)G(z), ε ~ U[0, 1], equation 3 of Gulrajani et al. 2017 without its λ.

    ε comes from torch's global stream, one an image. The discriminator must judge each image alone, without batch
    normalisation (section 4 there): `ModelConfig.penalised` says so to the architectures.
    """
    share = torch.rand(*real.shape[:-3], 1, 1, 1, device=real.device, dtype=real.dtype)
    between = torch.lerp(fake, real, share)
    # The norm's derivative at 0 is taken as 0, where the square root's would be infinite.
    return (torch.linalg.vector_norm(gradient(critic, between, labels), dim=IMAGE) - 1).square().mean(-1)


PENALTIES: dict[str, Penalty] = {"r1": r1, "r2": r2, "gradient_penalty": gradient_penalty}


def penalty(
    critic: Critic, strengths: Regularisers, real: Tensor, fake: Tensor, labels: Tensor | None, step: int
) -> Tensor | None:
    """Return the sum of all penalties by their strengths, None at a step that takes none.

    Taken at every `strengths.every`-th step and that many times as strong, so that its mean over steps is the same
    (lazy regularisation: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", appendix B; their
    correction of the optimiser belongs to updates of its own, and here the penalty shares the loss's). Computed in
    fp32: squares of gradients through gradients are beyond bfloat16's eight bits.
    """
    wanted = {name: strength for name in PENALTIES if (strength := getattr(strengths, name))}
    if not wanted or step % strengths.every:
        return None
    with torch.autocast(real.device.type, enabled=False):
        real, fake = real.float(), fake.float()
        terms = [strength * PENALTIES[name](critic, real, fake, labels) for name, strength in wanted.items()]
    return strengths.every * torch.stack(terms).sum(0)


@torch.no_grad()
def clip_weights(network: nn.Module, bound: float) -> None:
    """Clip all parameters to [-bound, bound], in place (Arjovsky, Chintala, Bottou 2017, algorithm 1, line 7)."""
    parameters: list[Tensor] = list(network.parameters())
    torch._foreach_clamp_min_(parameters, -bound)
    torch._foreach_clamp_max_(parameters, bound)
