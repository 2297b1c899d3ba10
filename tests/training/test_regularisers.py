"""Penalties on critics whose gradients are known, and clipped weights."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.params import Regularisers
from pipeline.training.regularisers import PENALTIES, clip_weights, gradient_penalty, penalty, r1, r2

SHAPE = (2, 3, 3)
REAL, FAKE = (torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
W = torch.randn(SHAPE, generator=torch.Generator().manual_seed(2))
A = torch.randn(18, 18, generator=torch.Generator().manual_seed(3))
A = A + A.T


def linear(images: Tensor, labels: Tensor | None = None) -> Tensor:
    """D(x) = w·x + 3, whose gradient is w everywhere."""
    return (W * images).sum((-3, -2, -1)) + 3


def quadratic(images: Tensor, labels: Tensor | None = None) -> Tensor:
    """D(x) = ½xᵀAx with a symmetric A, whose gradient is Ax."""
    x = images.flatten(-3)
    return 0.5 * (x @ A * x).sum(-1)


def test_a_linear_critic_has_its_weight_as_gradient() -> None:
    norm = W.norm()
    torch.testing.assert_close(r1(linear, REAL, FAKE, None), 0.5 * norm**2)
    torch.testing.assert_close(r2(linear, REAL, FAKE, None), 0.5 * norm**2)
    torch.testing.assert_close(gradient_penalty(linear, REAL, FAKE, None), (norm - 1) ** 2)


def test_r1_is_taken_at_real_and_r2_at_generated_images() -> None:
    for found, images in ((r1, REAL), (r2, FAKE)):
        expected = 0.5 * (images.flatten(1) @ A).square().sum(1).mean()
        torch.testing.assert_close(found(quadratic, REAL, FAKE, None), expected)


def test_the_gradient_penalty_is_taken_between_one_point_an_image() -> None:
    torch.manual_seed(7)
    found = gradient_penalty(quadratic, REAL, FAKE, None)
    torch.manual_seed(7)
    share = torch.rand(5, 1, 1, 1)
    between = (share * REAL + (1 - share) * FAKE).flatten(1)
    torch.testing.assert_close(found, ((between @ A).norm(dim=1) - 1).square().mean())
    assert len(share.unique()) == 5


@pytest.mark.parametrize(
    ("name", "slope"), [("r1", lambda w: w), ("gradient_penalty", lambda w: 2 * (1 - 1 / w.norm()) * w)]
)
def test_penalties_train_the_critic(name: str, slope: Callable[[Tensor], Tensor]) -> None:
    """The derivative by w of ½||w||² is w, of (||w|| - 1)² it is 2(1 - 1/||w||)w."""
    weight = W.clone().requires_grad_()
    PENALTIES[name](lambda x, y: (weight * x).sum((-3, -2, -1)), REAL, FAKE, None).backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, slope(W))


def test_a_constant_critic_has_finite_derivatives() -> None:
    weight = torch.zeros(SHAPE, requires_grad=True)
    value = gradient_penalty(lambda x, y: (weight * x).sum((-3, -2, -1)), REAL, FAKE, None)
    assert value.item() == 1
    value.backward()
    assert weight.grad is not None
    assert bool(weight.grad.isfinite().all())


def test_second_derivatives_against_finite_differences() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(18, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0)).double()
    names = [name for name, _ in network.named_parameters()]

    def of_weights(*weights: Tensor) -> Tensor:
        def critic(x: Tensor, y: Tensor | None) -> Tensor:
            return torch.func.functional_call(network, dict(zip(names, weights, strict=True)), (x,))

        torch.manual_seed(0)  # of the points between
        real, fake = REAL[:2].double(), FAKE[:2].double()
        return r1(critic, real, fake, None) + gradient_penalty(critic, real, fake, None)

    weights = tuple(parameter.detach().requires_grad_() for parameter in network.parameters())
    assert torch.autograd.gradcheck(of_weights, weights)


def test_labels_reach_the_critic() -> None:
    labels = torch.arange(5)

    def critic(images: Tensor, y: Tensor | None) -> Tensor:
        assert y is labels
        return linear(images) * y

    expected = 0.5 * (labels.float() * W.norm()).square().mean()
    torch.testing.assert_close(r1(critic, REAL, FAKE, labels), expected)


@pytest.mark.parametrize("name", PENALTIES)
def test_stacked_replicas_have_each_its_own(name: str) -> None:
    weights = torch.stack([W, 2 * W, -0.5 * W])

    def stacked(images: Tensor, y: Tensor | None) -> Tensor:
        return (weights[:, None] * images).sum((-3, -2, -1))

    real, fake = REAL.expand(3, -1, -1, -1, -1), FAKE.expand(3, -1, -1, -1, -1)
    found = PENALTIES[name](stacked, real, fake, None)
    alone = [PENALTIES[name](lambda x, y, w=w: (w * x).sum((-3, -2, -1)), REAL, FAKE, None) for w in weights]
    torch.testing.assert_close(found, torch.stack(alone))


@given(every=st.integers(1, 6), r1_=st.floats(0.1, 10), gp=st.floats(0.1, 10))
@settings(max_examples=20, deadline=None)
def test_a_lazy_penalty_has_the_same_mean(every: int, r1_: float, gp: float) -> None:
    strengths = Regularisers(r1=r1_, gradient_penalty=gp, every=every)
    taken = [penalty(linear, strengths, REAL, FAKE, None, step) for step in range(2 * every)]
    assert [value is not None for value in taken] == [step % every == 0 for step in range(2 * every)]
    mean = sum(value.item() for value in taken if value is not None) / len(taken)
    assert mean == pytest.approx(r1_ * 0.5 * W.norm().item() ** 2 + gp * (W.norm().item() - 1) ** 2, rel=1e-4)


def test_without_strengths_there_is_no_penalty() -> None:
    assert penalty(linear, Regularisers(weight_clip=0.1), REAL, FAKE, None, 0) is None


def test_penalties_are_computed_in_fp32() -> None:
    layer = nn.Linear(18, 1)

    def critic(images: Tensor, y: Tensor | None) -> Tensor:
        logits = layer(images.flatten(1)).flatten()
        assert logits.dtype == torch.float32
        return logits

    exact = penalty(critic, Regularisers(r1=1.0), REAL, FAKE, None, 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(penalty(critic, Regularisers(r1=1.0), REAL, FAKE, None, 0), exact)


@given(bound=st.floats(1e-3, 1.0))
@settings(max_examples=20, deadline=None)
def test_clipped_weights_are_within_the_bound_and_others_stay(bound: float) -> None:
    network = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
    before = [parameter.clone() for parameter in network.parameters()]
    clip_weights(network, bound)
    for old, new in zip(before, network.parameters(), strict=True):
        assert torch.equal(new, old.clamp(-bound, bound))
