"""Adversarial losses on logits. Adding one here and to `params.Family.loss` is all that a new one takes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor
from torch.nn.functional import relu, softplus

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class AdversarialLoss:
    """What each side minimises.

    discriminator, generator: map the logits of B real and of B generated images to a scalar; of stacked replicas, R×B
    logits to R. pairs: whether the generator's side looks at real images too; the others ignore their logits. With
    D = sigmoid(logit): -log D = softplus(-logit), -log(1 - D) = softplus(logit).
    """

    discriminator: Loss
    generator: Loss
    pairs: bool = False


def cross_entropy(real: Tensor, fake: Tensor, smoothing: float = 0.0) -> Tensor:
    """-E[log D(x)] - E[log(1 - D(G(z)))], the discriminator's side of equation 1 of Goodfellow et al. 2014.

    smoothing: the target of real images is 1 - smoothing instead of 1, that of generated ones stays 0 (Salimans et al.
    2016, section 3.4): with t = 1 - smoothing, -t·log D - (1 - t)·log(1 - D) = softplus(-logit) + smoothing·logit.
    """
    return (softplus(-real) + smoothing * real if smoothing else softplus(-real)).mean(-1) + softplus(fake).mean(-1)


def minimax(real: Tensor, fake: Tensor) -> Tensor:
    """E[log(1 - D(G(z)))], the generator's side of equation 1 of Goodfellow et al. 2014."""
    return -softplus(fake).mean(-1)


def nonsaturating(real: Tensor, fake: Tensor) -> Tensor:
    """-E[log D(G(z))], Goodfellow et al. 2014, end of section 3."""
    return softplus(-fake).mean(-1)


def least_squares_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """½E[(D(x) - 1)²] + ½E[D(G(z))²], equation 9 of Mao et al. 2017; D is the logit itself."""
    return 0.5 * (real - 1).square().mean(-1) + 0.5 * fake.square().mean(-1)


def least_squares_generator(real: Tensor, fake: Tensor) -> Tensor:
    """½E[(D(G(z)) - 1)²], equation 9 of Mao et al. 2017."""
    return 0.5 * (fake - 1).square().mean(-1)


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))], equation 16 of Miyato et al. 2018 with its sign turned."""
    return relu(1 - real).mean(-1) + relu(1 + fake).mean(-1)


def negative_score(real: Tensor, fake: Tensor) -> Tensor:
    """-E[D(G(z))], equation 17 of Miyato et al. 2018, sign turned; algorithm 1, line 10 of Arjovsky et al. 2017."""
    return -fake.mean(-1)


def wasserstein_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """E[D(G(z))] - E[D(x)], equation 3 of Arjovsky et al. 2017 with its sign turned.

    An estimate of the negative Wasserstein distance where something keeps D Lipschitz: clipped weights, a gradient
    penalty or spectral normalisation.
    """
    return fake.mean(-1) - real.mean(-1)


def relativistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """E[-log sigmoid(D(x) - D(G(z)))] over pairs of one real and one generated image (Jolicoeur-Martineau 2019, RSGAN).

    Equation 2 of Huang et al. 2024, with the sign of D that gives real images the higher logits.
    """
    return softplus(fake - real).mean(-1)


def relativistic_generator(real: Tensor, fake: Tensor) -> Tensor:
    """E[-log sigmoid(D(G(z)) - D(x))], the generator's side of the same."""
    return softplus(real - fake).mean(-1)


LOSSES = {
    "minimax": AdversarialLoss(cross_entropy, minimax),
    "nonsaturating": AdversarialLoss(cross_entropy, nonsaturating),
    "lsgan": AdversarialLoss(least_squares_discriminator, least_squares_generator),
    "hinge": AdversarialLoss(hinge_discriminator, negative_score),
    "wasserstein": AdversarialLoss(wasserstein_discriminator, negative_score),
    "relativistic": AdversarialLoss(relativistic_discriminator, relativistic_generator, pairs=True),
}
DEFAULT = "nonsaturating"


def adversarial_loss(name: str, label_smoothing: float = 0.0) -> AdversarialLoss:
    """Return a registered loss; `label_smoothing`, in [0, 0.5), is for those with a cross-entropy."""
    loss = LOSSES[name]
    if not label_smoothing:
        return loss
    assert loss.discriminator is cross_entropy
    return replace(loss, discriminator=partial(cross_entropy, smoothing=label_smoothing))
