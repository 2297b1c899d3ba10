"""What the convolutional architectures share: how an image size is halved down to a base, and DCGAN's start."""

from torch import nn

BASES = {8: 4, 16: 4, 28: 7, 32: 4, 64: 4, 128: 4}
CAP = 8  # widest layer, in units of the configured width


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
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
