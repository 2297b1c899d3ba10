"""DiffAugment's transformations: their ranges, that each image has its own, and that gradients pass."""

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.params import Family
from pipeline.training.augment import TRANSFORMATIONS, augment, color, cutout, translation

SIZES = [8, 16, 28, 32]


def noise(n: int = 64, channels: int = 3, size: int = 16) -> Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def moved(image: Tensor, down: int, right: int) -> Tensor:
    """The image C×S×S, moved by whole pixels, with zeros where nothing came in."""
    size = image.shape[-1]
    result = torch.zeros_like(image)
    for row in range(size):
        for column in range(size):
            if 0 <= row - down < size and 0 <= column - right < size:
                result[:, row, column] = image[:, row - down, column - right]
    return result


def test_no_transformation_changes_nothing() -> None:
    images = noise()
    assert augment(images, []) is images


@pytest.mark.parametrize("name", TRANSFORMATIONS)
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 28)])
def test_shape_is_kept_each_image_has_its_own_and_gradients_pass(name: str, channels: int, size: int) -> None:
    one = noise(1, channels, size)
    images = one.expand(32, -1, -1, -1).clone().requires_grad_()
    result = augment(images, [name])
    assert result.shape == images.shape
    assert len(result.detach().flatten(1).unique(dim=0)) > 8
    result.square().sum().backward()
    assert images.grad is not None
    assert bool((images.grad.flatten(1) != 0).any(1).all())
    # Image i's result depends on image i alone.
    torch.manual_seed(0)
    alone = augment(noise(4), [name])
    torch.manual_seed(0)
    others = augment(torch.cat([noise(4)[:1], torch.zeros(3, 3, 16, 16)]), [name])
    assert torch.equal(alone[0], others[0])


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_stacked_replicas_are_transformed_as_one_large_batch(name: str) -> None:
    images = noise(12)
    torch.manual_seed(3)
    flat = augment(images, [name])
    torch.manual_seed(3)
    stacked = augment(images.unflatten(0, (3, 4)), [name])
    assert torch.equal(stacked.flatten(0, 1), flat)


def test_brightness_moves_by_at_most_a_half_and_spares_nothing_else_of_one_colour() -> None:
    result = color(torch.full((2000, 1, 4, 4), 0.25))
    assert torch.allclose(result, result[:, :, :1, :1].expand_as(result), atol=1e-6)
    shift = result[:, 0, 0, 0] - 0.25
    assert -0.5 <= shift.min() < -0.45
    assert 0.45 < shift.max() <= 0.5


def test_saturation_and_contrast_keep_their_means() -> None:
    images = noise(500)
    result = color(images)
    shift = result.mean((1, 2, 3)) - images.mean((1, 2, 3))  # the brightness alone
    assert shift.abs().max() <= 0.5 + 1e-5
    # Contrast: grey values spread by 0.5 to 1.5; saturation has no part in them.
    grey, was = result.mean(1), images.mean(1)
    contrast = grey.std((1, 2)) / was.std((1, 2))
    assert 0.5 - 1e-4 <= contrast.min() < 0.6
    assert 1.4 < contrast.max() <= 1.5 + 1e-4
    # Saturation: the colours' distance from grey is spread by 0 to 2, and by the contrast.
    spread = (result - grey[:, None]).std((1, 2, 3)) / (images - was[:, None]).std((1, 2, 3)) / contrast
    assert spread.min() < 0.1
    assert 1.9 < spread.max() <= 2 + 1e-3


def test_one_channel_has_no_saturation_to_lose() -> None:
    images = noise(200, channels=1)
    spread = color(images).std((1, 2, 3)) / images.std((1, 2, 3))
    assert spread.min() >= 0.5 - 1e-4


@pytest.mark.parametrize("size", SIZES)
def test_translation_moves_whole_pixels_by_up_to_an_eighth(size: int) -> None:
    image = noise(1, 2, size)[0] + 2  # nowhere 0
    reach = round(size / 8)
    seen = set()
    for result in translation(image.expand(100, -1, -1, -1)):
        rows, columns = (result[0] != 0).any(1).nonzero().flatten(), (result[0] != 0).any(0).nonzero().flatten()
        down = int(rows[0]) or int(rows[-1]) - size + 1
        right = int(columns[0]) or int(columns[-1]) - size + 1
        assert torch.equal(result, moved(image, down, right))
        seen.add((down, right))
    assert {abs(way) for pair in seen for way in pair} == set(range(reach + 1))


@given(size=st.sampled_from(SIZES), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_cutout_clears_one_square_that_may_reach_over_the_edge(size: int, seed: int) -> None:
    torch.manual_seed(seed)
    images = noise(8, 2, size) + 2
    for image, result in zip(images, cutout(images), strict=True):
        gone = (result == 0).all(0)
        assert torch.equal(result[:, ~gone], image[:, ~gone])
        rows, columns = gone.any(1).nonzero().flatten(), gone.any(0).nonzero().flatten()
        assert torch.equal(gone, gone.any(1)[:, None] & gone.any(0)[None])
        for side in (rows, columns):
            assert int(side[-1]) - int(side[0]) + 1 == len(side) <= size // 2
            # Smaller than half the side only at an edge, and at least a quarter of the side.
            assert len(side) == size // 2 or (int(side[0]) == 0 or int(side[-1]) == size - 1)
            assert len(side) >= size // 4


@pytest.mark.parametrize("size", SIZES)
def test_cutout_reaches_as_far_over_each_edge(size: int) -> None:
    gone = cutout(torch.ones(3000, 1, size, size))[:, 0] == 0
    for sides in (gone.any(1), gone.any(2)):
        for edge in (sides[:, 0], sides[:, -1]):
            assert sides[edge].sum(1).min() == size // 4


def test_the_order_is_the_registry_s_whatever_the_recipe_says() -> None:
    images = noise()
    torch.manual_seed(5)
    one = augment(images, ["cutout", "color"])
    torch.manual_seed(5)
    assert torch.equal(one, cutout(color(images)))


def test_parameters_allow_exactly_these_transformations() -> None:
    (literal,) = get_args(Family.model_fields["augment"].annotation)
    assert set(get_args(literal)) == set(TRANSFORMATIONS)
