"""What every architecture has in common: its configuration, its registry and the contract of its networks."""

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class ModelConfig:
    """Everything that is needed to build a network again; stored beside its weights as JSON.

    channels, size: the image is channels×size×size. latent: length of z. width: the architecture's base number of
    channels or units. sample_noise: a vae's generator returns μ + σ⊙ε instead of μ.
    """

    architecture: str
    channels: int
    size: int
    latent: int
    width: int
    sample_noise: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Architecture:
    """Builders of one architecture's networks.

    generator: builds a module whose `forward(z, y=None)` maps z (B×Z float) and y (B int64 or absent) to images,
    B×C×H×W float in [-1, 1]; its attribute `latent` is Z. discriminator: builds a module that maps such images to B
    logits (None where training needs none). encoder: builds a module that maps images to (mean, log-variance), each
    B×latent (None but for variational autoencoders).
    """

    name: str
    generator: Callable[[ModelConfig], nn.Module]
    discriminator: Callable[[ModelConfig], nn.Module] | None = None
    encoder: Callable[[ModelConfig], nn.Module] | None = None


_REGISTRY: dict[str, Architecture] = {}


def register(architecture: Architecture) -> Architecture:
    """Add an architecture to the registry; its file in this package must bear its name."""
    _REGISTRY[architecture.name] = architecture
    return architecture


def architecture(name: str) -> Architecture:
    """Return a registered architecture, importing its file when it is first asked for."""
    if name not in _REGISTRY:
        importlib.import_module(f"{__package__}.{name}")
    return _REGISTRY[name]
