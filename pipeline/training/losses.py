"""Adversarial losses on logits. Adding one here and to `params.Family.loss` is all that a new one takes."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import relu, softplus


@dataclass(frozen=True)
class AdversarialLoss:
    """What each side minimises.

    discriminator: maps the logits of B real and B generated images to a scalar. generator: maps the logits of B
    generated images to a scalar. With D = sigmoid(logit): -log D = softplus(-logit), -log(1 - D) = softplus(logit).
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


def cross_entropy(real: Tensor, fake: Tensor) -> Tensor:
    """-E[log D(x)] - E[log(1 - D(G(z)))], the discriminator's side of equation 1 of Goodfellow et al. 2014."""
    return softplus(-real).mean() + softplus(fake).mean()


def minimax(fake: Tensor) -> Tensor:
    """E[log(1 - D(G(z)))], the generator's side of equation 1 of Goodfellow et al. 2014."""
    return -softplus(fake).mean()


def nonsaturating(fake: Tensor) -> Tensor:
    """-E[log D(G(z))], Goodfellow et al. 2014, end of section 3."""
    return softplus(-fake).mean()


def least_squares_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """½E[(D(x) - 1)²] + ½E[D(G(z))²], equation 9 of Mao et al. 2017; D is the logit itself."""
    return 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean()


def least_squares_generator(fake: Tensor) -> Tensor:
    """½E[(D(G(z)) - 1)²], equation 9 of Mao et al. 2017."""
    return 0.5 * (fake - 1).square().mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))], equation 16 of Miyato et al. 2018 with its sign turned."""
    return relu(1 - real).mean() + relu(1 + fake).mean()


def hinge_generator(fake: Tensor) -> Tensor:
    """-E[D(G(z))], equation 17 of Miyato et al. 2018 with its sign turned."""
    return -fake.mean()


LOSSES = {
    "minimax": AdversarialLoss(cross_entropy, minimax),
    "nonsaturating": AdversarialLoss(cross_entropy, nonsaturating),
    "lsgan": AdversarialLoss(least_squares_discriminator, least_squares_generator),
    "hinge": AdversarialLoss(hinge_discriminator, hinge_generator),
}
DEFAULT = "nonsaturating"
