"""What an objective is given, what it has to say, and the registry of objectives."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from pipeline.compute import Runtime
from pipeline.models._base import ModelConfig, architecture
from pipeline.params import Family

if TYPE_CHECKING:
    from pipeline.training.state import State


@dataclass(frozen=True)
class Batch:
    """What one step trains on.

    real: B×C×H×W in [-1, 1]. z: B×`Objective.noise`, standard normal. labels: B int64, for a conditional model alone;
    generated images are asked for the same classes. step: how many steps came before. Other draws (dropout,
    augmentation) come from torch's global stream, which the loop seeds anew at each step.
    Of R replicas that train as one, real, z and labels have R in front.
    """

    real: Tensor
    z: Tensor
    labels: Tensor | None
    step: int


class Objective(ABC):
    """Trains the networks of one member, or of several that train together.

    kind: `gan`, `vae` or another word for what is trained. loss: the loss's name in files and pages. columns: names of
    the numbers that each step returns; `NAME@1` is a number of member 1 alone. updates: the networks that a step
    updates, in the order of the updates: those of one tuple together, each tuple in view of what those before changed.
    """

    kind: str
    loss: str
    columns: tuple[str, ...]
    updates: tuple[tuple[str, ...], ...] = (("discriminator",), ("generator",))

    def __init__(self, family: Family, config: ModelConfig, runtime: Runtime) -> None:
        self.family, self.config, self.runtime = family, config, runtime

    @property
    def noise(self) -> int:
        """How many normal numbers a step is given for each image."""
        return self.config.latent

    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """Build all networks in training mode on the CPU: `generator` and its partners, by their role."""

    @abstractmethod
    def step(self, state: "State", batch: Batch) -> Tensor:
        """Do one step and return `columns` as one tensor, without waiting for the device."""

    def members(self, state: "State") -> list[dict[str, nn.Module]]:
        """Return what is kept of each member: the averaged `generator` and, where there is one, its `discriminator`."""
        kept = {"generator": state.average}
        if "discriminator" in state.networks:
            kept["discriminator"] = state.networks["discriminator"]
        return [kept]


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Take no gradients of a network's weights; afterwards they have them again, also where memory ran out inside."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


_REGISTRY: dict[str, type[Objective]] = {}


def register(name: str) -> Callable[[type[Objective]], type[Objective]]:
    """Add an objective to the registry; its file in this package must bear its name."""

    def add(objective: type[Objective]) -> type[Objective]:
        _REGISTRY[name] = objective
        return objective

    return add


def objective_for(family: Family, config: ModelConfig, runtime: Runtime) -> Objective:
    """Return what trains a member of `family`, importing its file when it is first asked for.

    The architecture names it; adversarial training has forms of its own for generators that train together and for
    several discriminators.
    """
    name = architecture(config.architecture).objective
    if name == "adversarial" and family.scheme == "joint":
        name = "joint"
    elif name == "adversarial" and family.discriminators > 1:
        name = "panel"
    if name not in _REGISTRY:
        importlib.import_module(f"{__package__}.{name}")
    return _REGISTRY[name](family, config, runtime)
