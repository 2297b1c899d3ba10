"""The networks of our own extractors.

Each maps float images B×C×S×S in [-1, 1] to (features B×D, logits B×K or None), and halves them until they are 4 pixels
high, so one definition serves sizes from 8 to 128.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Output = tuple[Tensor, Tensor | None]
MAPS = "-maps"  # ends the kinds whose features are followed by their maps


@dataclass(frozen=True)
class NetworkConfig:
    """What is needed to build an extractor's network again.

    kind: a key of `KINDS`. channels, size: of the images. features: D. classes: K, 0 where there are none.
    """

    kind: str
    channels: int
    size: int
    features: int
    classes: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def widths(size: int) -> list[int]:
    """Return the channels at each resolution, one entry a halving: few where the maps are large, at most 128."""
    steps = max(math.ceil(math.log2(size / 4)), 1)
    return [max(128 >> (max(steps, 3) - 1 - i), 16) for i in range(steps)]


def quarters(maps: Tensor) -> Tensor:
    """Map B×C×H×W to B×4C: the means over the quarters of the image."""
    return F.adaptive_avg_pool2d(maps, 2).flatten(1)


class ConvNet(nn.Module):
    """Plain convolutions and max pooling; the last maps' means are projected to the features.

    A pass appends the quarters of what each activation puts out to the `maps` that it is given.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = config.channels
        for width in widths(config.size):
            layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            layers += [nn.MaxPool2d(2, ceil_mode=True)]
            inputs = width
        layers += [nn.Conv2d(inputs, 128, 3, padding=1, bias=False), nn.BatchNorm2d(128), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.features = nn.Linear(128, config.features)
        self.logits = nn.Linear(config.features, config.classes) if config.classes else None

    @staticmethod
    def mapped(size: int) -> int:
        """Return how many numbers the maps of an image come to."""
        return 4 * (sum(widths(size)) + 128)

    def forward(self, images: Tensor, maps: list[Tensor] | None = None) -> Output:
        for layer in self.body:
            images = layer(images)
            if maps is not None and isinstance(layer, nn.ReLU):
                maps.append(quarters(images))
        features = self.features(images.mean((2, 3)))
        return features, None if self.logits is None else self.logits(features.relu())


class ResidualBlock(nn.Module):
    """Pre-activation residual block (He et al., arXiv:1603.05027) that halves its input by average pooling."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.SiLU(),
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.SiLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        )
        self.skip = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.skip(x)


class ResidualNet(nn.Module):
    """Strided pre-activation residual blocks on 5×5 stem filters; the last maps are read whole, not averaged.

    A pass appends the quarters of what each block puts out to the `maps` that it is given.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        channels = widths(config.size)
        self.stem = nn.Conv2d(config.channels, channels[0], 5, padding=2)
        pairs = zip([channels[0], *channels], channels, strict=False)
        self.blocks = nn.Sequential(*(ResidualBlock(inputs, outputs) for inputs, outputs in pairs))
        side = config.size
        for _ in channels:
            side = -(-side // 2)
        self.norm = nn.BatchNorm2d(channels[-1])
        self.features = nn.Linear(channels[-1] * side**2, config.features)
        self.logits = nn.Linear(config.features, config.classes) if config.classes else None

    @staticmethod
    def mapped(size: int) -> int:
        """Return how many numbers the maps of an image come to."""
        return 4 * sum(widths(size))

    def forward(self, images: Tensor, maps: list[Tensor] | None = None) -> Output:
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
            if maps is not None:
                maps.append(quarters(x))
        features = self.features(F.silu(self.norm(x)).flatten(1))
        return features, None if self.logits is None else self.logits(F.silu(features))


class Autoencoder(nn.Module):
    """Strided convolutions to a code, which is the features, and transposed ones back to the image."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        channels = widths(config.size)
        sides = [config.size]
        for _ in channels:
            sides.append(-(-sides[-1] // 2))
        inputs = [config.channels, *channels]
        encoder: list[nn.Module] = []
        decoder: list[nn.Module] = []
        for i, width in enumerate(channels):
            encoder += [nn.Conv2d(inputs[i], width, 4 - sides[i] % 2, 2, 1), nn.BatchNorm2d(width), nn.SiLU()]
            last = i == 0
            up: list[nn.Module] = [nn.ConvTranspose2d(width, inputs[i], 4 - sides[i] % 2, 2, 1)]
            decoder = up + ([] if last else [nn.BatchNorm2d(inputs[i]), nn.SiLU()]) + decoder
        shape = (channels[-1], sides[-1], sides[-1])
        self.encoder = nn.Sequential(*encoder, nn.Flatten(), nn.Linear(math.prod(shape), config.features))
        self.decoder = nn.Sequential(
            nn.Linear(config.features, math.prod(shape)), nn.Unflatten(1, shape), nn.SiLU(), *decoder, nn.Tanh()
        )

    def forward(self, images: Tensor) -> Output:
        return self.encoder(images), None


class PrincipalPixels(nn.Module):
    """Principal components of the pixels, after antialiased reduction to at most 32 pixels a side."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.side = min(config.size, 32)
        self.mean: Tensor
        self.basis: Tensor
        pixels = config.channels * self.side**2
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("basis", torch.zeros(pixels, config.features))

    def pixels(self, images: Tensor) -> Tensor:
        """Return B×P, the reduced images as rows."""
        if images.shape[-1] > self.side:
            images = F.interpolate(images, size=(self.side, self.side), mode="bilinear", antialias=True)
        return images.flatten(1)

    def forward(self, images: Tensor) -> Output:
        return (self.pixels(images) - self.mean) @ self.basis, None


class Mapped(nn.Module):
    """A network whose features are followed by its maps: what its last layer has learnt to overlook."""

    def __init__(self, kind: type[ConvNet] | type[ResidualNet], config: NetworkConfig) -> None:
        super().__init__()
        self.network = kind(replace(config, features=config.features - kind.mapped(config.size)))

    def forward(self, images: Tensor) -> Output:
        maps: list[Tensor] = []
        features, logits = self.network(images, maps)
        return torch.cat([features, *maps], 1), logits


KINDS: dict[str, Callable[[NetworkConfig], nn.Module]] = {
    "plain": ConvNet,
    "residual": ResidualNet,
    "autoencoder": Autoencoder,
    "pixels": PrincipalPixels,
    f"plain{MAPS}": partial(Mapped, ConvNet),
    f"residual{MAPS}": partial(Mapped, ResidualNet),
}


class Standardised(nn.Module):
    """A network whose features are centred and divided by one number, their root mean variance over real images.

    One number for all keeps the geometry; it makes distances of different extractors alike in size, and the cubic
    kernel of KID, which depends on the scale, well behaved.
    """

    def __init__(self, network: nn.Module, features: int) -> None:
        super().__init__()
        self.network = network
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(()))

    def forward(self, images: Tensor) -> Output:
        features, logits = self.network(images)
        return (features - self.mean) / self.deviation, logits

    def fit(self, features: Tensor) -> None:
        """Set centre and scale from the network's own features N×D; features that never vary keep their scale."""
        values = features.double()
        self.mean.copy_(values.mean(0))
        deviation = values.var(0).mean().sqrt()
        self.deviation.copy_(deviation if deviation > 0 else torch.ones_like(deviation))


def build(config: NetworkConfig) -> Standardised:
    """Build an extractor's network with fresh weights."""
    return Standardised(KINDS[config.kind](config), config.features)


def with_maps(config: NetworkConfig, network: Standardised) -> tuple[NetworkConfig, Standardised]:
    """Return the same network, whose weights it shares, with its maps behind its features; of a kind that has them."""
    inner: Any = network.network
    wide = replace(config, kind=f"{config.kind}{MAPS}", features=config.features + inner.mapped(config.size))
    made: Any = build(wide)
    made.network.network = inner
    made.mean[: config.features] = network.mean
    made.deviation.copy_(network.deviation)
    return wide, made.to(network.mean.device).eval().requires_grad_(False)


def to_float(images: Tensor) -> Tensor:
    """Map uint8 in [0, 255] to floats in [-1, 1]."""
    return images.float().div(127.5).sub(1)
