"""What the convolutional architectures share: their pyramid of sizes, halving and doubling layers, DCGAN's start."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import conv2d, conv_transpose2d, linear, pad

BASES = {8: 4, 16: 4, 28: 7, 32: 4, 64: 4, 128: 4}
CAP = 8  # widest layer, in units of the configured width
PRODUCT_SIDE = 4


def pyramid(size: int, width: int) -> tuple[int, list[int]]:
    """Return the base's side and the channels of each level, from the base up to half the image's size.

    Each level is twice as large as the one before; channels double downwards from `width` to at most 8 × `width`.
    """
    base = BASES[size]
    levels = (size // base).bit_length() - 1
    return base, [width * min(2**level, CAP) for level in reversed(range(levels))]


def initialise(network: nn.Module) -> None:
    """Draw weights from N(0, 0.02²), batch-norm gains from N(1, 0.02²); biases 0 (Radford et al. 2016, section 4)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight, 1.0, 0.02)


class ToMap(nn.Module):
    """Give a vector its place in space: B×(S·S·channels) to B×channels×S×S, in channels_last without a copy."""

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.shape = (side, side, channels)

    def forward(self, vectors: Tensor) -> Tensor:
        return vectors.unflatten(1, self.shape).permute(0, 3, 1, 2)


class ToVector(nn.Module):
    """The inverse of `ToMap`: B×channels×S×S to B×(S·S·channels)."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.permute(0, 2, 3, 1).flatten(1)


class Down(nn.Conv2d):
    """4×4 convolution of stride 2 that halves the side: B×before×2S×2S to B×after×S×S."""

    def __init__(self, before: int, after: int, bias: bool = False) -> None:
        super().__init__(before, after, 4, stride=2, padding=1, bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        return halved(images, self.weight, self.bias)


class Up(nn.ConvTranspose2d):
    """4×4 transposed convolution of stride 2 that doubles the side: B×before×S×S to B×after×2S×2S."""

    def __init__(self, before: int, after: int, bias: bool = False) -> None:
        super().__init__(before, after, 4, stride=2, padding=1, bias=bias)

    def forward(self, maps: Tensor, output_size: list[int] | None = None) -> Tensor:
        return doubled(maps, self.weight, self.bias)


def halved(images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve with stride 2: B×before×2S×2S and weights after×before×4×4 to B×after×S×S."""
    if not as_product(images, images.shape[-1] // 2):
        return conv2d(images, weight, bias, stride=2, padding=1)
    windows = Windows.apply(images.permute(0, 2, 3, 1))
    return linear(windows, weight.permute(0, 2, 3, 1).flatten(1), bias).permute(0, 3, 1, 2)


def doubled(maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve transposed with stride 2: B×before×S×S and weights before×after×4×4 to B×after×2S×2S."""
    if not as_product(maps, maps.shape[-1]):
        return conv_transpose2d(maps, weight, bias, stride=2, padding=1)
    windows = maps.permute(0, 2, 3, 1) @ weight.permute(0, 2, 3, 1).flatten(1)
    images: Tensor = Overlap.apply(windows).permute(0, 3, 1, 2)
    return images if bias is None else images + bias.to(images.dtype)[:, None, None]


def conv_halved(layer: nn.Conv2d, images: Tensor) -> Tensor:
    """Return the means of 2×2 pixels of a 3×3 convolution that keeps the side: B×before×2S×2S to B×after×S×S.

    Mean and convolution are one convolution of stride 2 with 4×4 weights: 16 multiplications a pixel of the result
    where the two take 36, and the maps between them are never written.
    """
    return halved(images, spread(layer.weight) / 4, layer.bias)


def doubled_conv(layer: nn.Conv2d, maps: Tensor) -> Tensor:
    """Return a 3×3 convolution, which keeps the side, of the maps with each pixel repeated 2×2: B×before×S×S to
    B×after×2S×2S.

    Each of the four pixels that one becomes sees only 2×2 different ones: together a transposed convolution of stride
    2 with 4×4 weights (the sub-pixel form; Shi et al. 2016, "Is the deconvolution layer the same as a convolutional
    layer?"), 16 multiplications for the four where the repeated maps take 36.
    """
    return doubled(maps, spread(layer.weight).flip(2, 3).transpose(0, 1), layer.bias)


def spread(weight: Tensor) -> Tensor:
    """Convolve 3×3 weights with 2×2 ones: …×3×3 to …×4×4, in the weights' own precision whatever autocast does."""
    line = weight.new_tensor([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]])
    with torch.autocast(weight.device.type, enabled=False):
        return (weight.flatten(-2) @ torch.kron(line, line).T).unflatten(-1, (4, 4))


def as_product(maps: Tensor, side: int) -> bool:
    """Whether a layer whose smaller side is `side` is quicker as windows times a matrix than as a convolution.

    So it is in bfloat16 on the CPU for the smallest maps, which have the largest weights: oneDNN's gradients of those
    weights take three to five times as long as the matrix product.
    """
    return side <= PRODUCT_SIDE and maps.device.type == "cpu" and torch.is_autocast_enabled("cpu")


class EachImage(Function):
    """A linear function of each image by itself, so that stacked batches are one longer batch to it."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Its gradient needs none of its inputs."""

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Tensor, int]:
        (place,) = in_dims
        assert place is not None
        stacked = inputs[0].movedim(place, 0)
        return cls.apply(stacked.flatten(0, 1)).unflatten(0, stacked.shape[:2]), 0


class Windows(EachImage):
    """Gather the 4×4 windows of stride 2 of padded images: B×2S×2S×C to B×S×S×16C. Adjoint of `Overlap`."""

    @staticmethod
    def forward(images: Tensor) -> Tensor:
        b, h, w, c = images.shape
        padded = pad(images, (0, 0, 1, 1, 1, 1)).contiguous()
        row, column = padded.stride(1), padded.stride(2)
        strides = (padded.stride(0), 2 * row, 2 * column, row, column, 1)
        return padded.as_strided((b, h // 2, w // 2, 4, 4, c), strides).reshape(b, h // 2, w // 2, 16 * c)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return Overlap.apply(gradients[0])


class Overlap(EachImage):
    """Add 4×4 windows of stride 2 up where they overlap and cut the padding off: B×S×S×16C to B×2S×2S×C."""

    @staticmethod
    def forward(windows: Tensor) -> Tensor:
        b, h, w, length = windows.shape
        c = length // 16
        # A window's pixel is at row 2·dy + py and column 2·dx + px; (px, channel) stay together in memory.
        parts = windows.view(b, h, w, 2, 2, 2, 2 * c)
        padded = windows.new_zeros(b, h + 1, 2, w + 1, 2 * c)
        for dy in (0, 1):
            for dx in (0, 1):
                padded[:, dy : dy + h, :, dx : dx + w] += parts[:, :, :, dy, :, dx].transpose(2, 3)
        return padded.view(b, 2 * h + 2, 2 * w + 2, c)[:, 1:-1, 1:-1].contiguous()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return Windows.apply(gradients[0])
