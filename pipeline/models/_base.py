"""What every architecture has in common: its configuration, its registry and the contract of its networks."""

import importlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import Any

from torch import nn

from pipeline.errors import ChorusError
from pipeline.layers.judges import Identifier, Panel
from pipeline.layers.spectral import add_spectral_norm


@dataclass(frozen=True)
class ModelConfig:
    """Everything that is needed to build a network again; stored beside its weights as JSON.

    channels, size: the image is channels×size×size. latent: length of z. width: the architecture's base number of
    channels or units. sample_noise: a vae's generator returns μ + σ⊙ε instead of μ. class_shares: how often each class
    occurs in the training images, for a conditional model (empty: unconditional). dropout: of the discriminator's
    hidden layers (None: the architecture's own). spectral_norm: of the discriminator's layers. penalised: whether
    its gradient at an image is penalised, so that it must judge each image alone, without batch normalisation. outputs:
    its scores for each image, one of them or one for each of k generators and for real images, last.
    discriminators: how many judge together. sampling_steps: of a generator that integrates. parts, weights: a composite
    generator's parts, and the weights with which a mixture draws from them.
    """

    architecture: str
    channels: int
    size: int
    latent: int
    width: int
    sample_noise: bool = False
    class_shares: tuple[float, ...] = ()
    dropout: float | None = None
    spectral_norm: bool = False
    penalised: bool = False
    outputs: int = 1
    discriminators: int = 1
    sampling_steps: int | None = None
    parts: tuple["ModelConfig", ...] = ()
    weights: tuple[float, ...] = ()

    @property
    def classes(self) -> int:
        """How many classes a conditional model knows; 0 for an unconditional one."""
        return len(self.class_shares)

    def to_json(self) -> dict[str, Any]:
        """Return what differs from the defaults, and what has none."""
        default = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in asdict(self).items() if value != default[name]}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "ModelConfig":
        """Read what `to_json` wrote."""
        parts = tuple(cls.from_json(part) for part in content.get("parts", ()))
        numbers = {name: tuple(content.get(name, ())) for name in ("class_shares", "weights")}
        return cls(**{**content, **numbers, "parts": parts})


@dataclass(frozen=True)
class Architecture:
    """Builders of one architecture's networks.

    generator: builds a module whose `forward(z, y=None)` maps z (B×Z float) and y (B int64; absent for an unconditional
    model) to images, B×C×H×W float in [-1, 1]; its attribute `latent` is Z, and `passes`, where it has one, how many
    passes of a network one image takes. discriminator: builds a module whose `forward(images, y=None)` maps such images
    to B logits, or B×outputs where the configuration asks for several (None where training needs none). encoder: builds
    a module whose `forward(images, y=None)` maps images to (mean, log-variance), each B×latent (None where training
    needs none). objective: what trains it, a name in `pipeline.training.objectives`.
    """

    name: str
    generator: Callable[[ModelConfig], nn.Module]
    discriminator: Callable[[ModelConfig], nn.Module] | None = None
    encoder: Callable[[ModelConfig], nn.Module] | None = None
    objective: str = "adversarial"


_REGISTRY: dict[str, Architecture] = {}
# Architectures that only schemes and fusions make. Their file's name begins with an underscore, so that `params.yaml`
# cannot ask for them.
COMPOSITES = dict.fromkeys(("mixture", "cascade", "stack"), "_composite")


def register(architecture: Architecture) -> Architecture:
    """Add an architecture to the registry; its file in this package must bear its name."""
    _REGISTRY[architecture.name] = architecture
    return architecture


def architecture(name: str) -> Architecture:
    """Return a registered architecture, importing its file when it is first asked for.

    Raises `ChorusError` for any other name: one may come from the `config.json` of a foreign snapshot.
    """
    if name not in _REGISTRY and name.isidentifier():
        with suppress(ModuleNotFoundError):
            importlib.import_module(f"{__package__}.{COMPOSITES.get(name, name)}")
    if name not in _REGISTRY:
        raise ChorusError(f"there is no architecture {name!r} in this code")
    return _REGISTRY[name]


def build_generator(config: ModelConfig) -> nn.Module:
    """Build a generator; its attribute `class_shares` says how often a conditional one is asked for each class."""
    network = architecture(config.architecture).generator(config)
    network.class_shares = config.class_shares  # type: ignore[assignment]
    return network


def build_discriminator(config: ModelConfig) -> nn.Module | None:
    """Build a discriminator, with spectral normalisation where asked for; None for an architecture without one.

    Whatever its kind it maps images, and labels where there are classes, to B logits. Several discriminators come as a
    `Panel`, each with initial weights of its own, one with several outputs as an `Identifier`.
    """
    build = architecture(config.architecture).discriminator
    if build is None:
        return None
    judges = [build(config) for _ in range(config.discriminators)]
    if config.spectral_norm:
        judges = [add_spectral_norm(judge) for judge in judges]
    network = judges[0] if len(judges) == 1 else Panel(judges)
    return network if config.outputs == 1 else Identifier(network)
