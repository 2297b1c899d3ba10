"""Losses against numbers worked out by hand, and against torch's own where it has them."""

from math import exp, log
from typing import get_args

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from pipeline.params import Family
from pipeline.training.losses import DEFAULT, LOSSES, adversarial_loss

REAL, FAKE = torch.tensor([2.0, 0.5]), torch.tensor([-1.0, 3.0])


def softplus(x: float) -> float:
    return log(1 + exp(x))


ENTROPY = (softplus(-2) + softplus(-0.5)) / 2 + (softplus(-1) + softplus(3)) / 2
EXPECTED = {
    "minimax": (ENTROPY, -(softplus(-1) + softplus(3)) / 2),
    "nonsaturating": (ENTROPY, (softplus(1) + softplus(-3)) / 2),
    # ½·mean(1², 0.5²) + ½·mean(1², 3²); ½·mean(2², 2²)
    "lsgan": (0.3125 + 2.5, 2.0),
    # mean(0, 0.5) + mean(0, 4); -mean(-1, 3)
    "hinge": (0.25 + 2.0, -1.0),
    # mean(-1, 3) - mean(2, 0.5); -mean(-1, 3)
    "wasserstein": (1.0 - 1.25, -1.0),
    # Of the pairs (2, -1) and (0.5, 3): how much higher the generated one is, and the real one.
    "relativistic": ((softplus(-3) + softplus(2.5)) / 2, (softplus(3) + softplus(-2.5)) / 2),
}


@pytest.mark.parametrize("name", LOSSES)
def test_values(name: str) -> None:
    loss = LOSSES[name]
    discriminator, generator = EXPECTED[name]
    assert loss.discriminator(REAL, FAKE).item() == pytest.approx(discriminator, rel=1e-6)
    assert loss.generator(REAL, FAKE).item() == pytest.approx(generator, rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_generator_is_pulled_towards_higher_logits_and_the_discriminator_pushes_them_apart(name: str) -> None:
    real, fake = (torch.tensor([-0.5, 0.2], requires_grad=True) for _ in range(2))
    LOSSES[name].generator(real, fake).backward()
    assert fake.grad is not None
    assert (fake.grad < 0).all()
    assert LOSSES[name].pairs == (real.grad is not None)
    # Of least squares only logits that are not beyond their targets, 1 and 0.
    above, below = (torch.tensor([0.5, 0.2], requires_grad=True) for _ in range(2))
    LOSSES[name].discriminator(above, below).backward()
    assert above.grad is not None
    assert below.grad is not None
    assert (above.grad < 0).all()
    assert (below.grad > 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_stacked_replicas_have_each_its_own(name: str) -> None:
    real, fake = torch.randn(3, 8), torch.randn(3, 8)
    for side in (LOSSES[name].discriminator, LOSSES[name].generator):
        stacked = side(real, fake)
        assert stacked.shape == (3,)
        torch.testing.assert_close(stacked, torch.stack([side(r, f) for r, f in zip(real, fake, strict=True)]))


def test_against_torch() -> None:
    ones, zeros = torch.ones(2), torch.zeros(2)
    entropy = binary_cross_entropy_with_logits(REAL, ones) + binary_cross_entropy_with_logits(FAKE, zeros)
    torch.testing.assert_close(LOSSES["nonsaturating"].discriminator(REAL, FAKE), entropy)
    torch.testing.assert_close(
        LOSSES["nonsaturating"].generator(REAL, FAKE), binary_cross_entropy_with_logits(FAKE, ones)
    )
    squares = (mse_loss(REAL, ones) + mse_loss(FAKE, zeros)) / 2
    torch.testing.assert_close(LOSSES["lsgan"].discriminator(REAL, FAKE), squares)


def test_logits_far_out_give_finite_gradients() -> None:
    for name, loss in LOSSES.items():
        real, fake = (torch.tensor([-1e4, 1e4], requires_grad=True) for _ in range(2))
        (loss.discriminator(real, fake) + loss.generator(real, fake)).backward()
        assert real.grad is not None
        assert fake.grad is not None
        assert bool(real.grad.isfinite().all() & fake.grad.isfinite().all()), name


@pytest.mark.parametrize("name", ["minimax", "nonsaturating"])
def test_label_smoothing_is_for_real_images_alone(name: str) -> None:
    loss = adversarial_loss(name, 0.1)
    # -0.9·log D - 0.1·log(1 - D) with D = sigmoid of 2 and of 0.5.
    real = (0.9 * softplus(-2) + 0.1 * softplus(2) + 0.9 * softplus(-0.5) + 0.1 * softplus(0.5)) / 2
    fake = (softplus(-1) + softplus(3)) / 2
    assert loss.discriminator(REAL, FAKE).item() == pytest.approx(real + fake, rel=1e-6)
    target = torch.full((2,), 0.9)
    smoothed = binary_cross_entropy_with_logits(REAL, target) + binary_cross_entropy_with_logits(FAKE, torch.zeros(2))
    torch.testing.assert_close(loss.discriminator(REAL, FAKE), smoothed)
    assert loss.generator is LOSSES[name].generator
    # The best logit is no longer infinite: log(0.9 / 0.1).
    best = torch.tensor([log(9.0)], requires_grad=True)
    loss.discriminator(best, torch.zeros(1)).backward()
    assert best.grad is not None
    assert best.grad.item() == pytest.approx(0, abs=1e-6)


def test_without_smoothing_the_registered_loss_is_returned() -> None:
    assert all(adversarial_loss(name) is loss for name, loss in LOSSES.items())


def test_parameters_allow_exactly_these_losses() -> None:
    literal, _none = get_args(Family.model_fields["loss"].annotation)
    assert set(get_args(literal)) == set(LOSSES)
    assert DEFAULT in LOSSES
