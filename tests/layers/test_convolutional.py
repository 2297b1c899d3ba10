"""Layers that change the side, against the plain operations that they stand for."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from pipeline.layers.convolutional import Overlap, Windows, conv_halved, doubled_conv


def gradients(result: Tensor, *inputs: Tensor) -> list[Tensor]:
    weighted = (result * torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view_as(result)).sum()
    return list(torch.autograd.grad(weighted, inputs))


@pytest.mark.parametrize("halves", [True, False])
@pytest.mark.parametrize("side", [2, 6, 8])
def test_a_3x3_convolution_is_one_with_the_mean_after_it_or_the_repetition_before_it(side: int, halves: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 5, 3, padding=1).double()
    maps = torch.randn(2, 3, side, side, dtype=torch.float64, requires_grad=True)
    inputs = (maps, layer.weight, layer.bias)
    if halves:
        ours, plain = conv_halved(layer, maps), avg_pool2d(layer(maps), 2)
    else:
        ours, plain = doubled_conv(layer, maps), layer(interpolate(maps, scale_factor=2.0, mode="nearest"))
    torch.testing.assert_close(ours, plain)
    for mine, other in zip(gradients(ours, *inputs), gradients(plain, *inputs), strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("layer", [Windows, Overlap])
def test_windows_of_stacked_images_are_those_of_each(layer: type[Windows] | type[Overlap]) -> None:
    stacked = torch.randn(3, 2, 4, 4, 16, requires_grad=True)
    ours = torch.vmap(layer.apply)(stacked)
    alone = torch.stack([layer.apply(images) for images in stacked])
    assert torch.equal(ours, alone)
    assert torch.equal(*gradients(ours, stacked), *gradients(alone, stacked))
