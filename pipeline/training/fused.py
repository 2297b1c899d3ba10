"""Replicas of one family that train as one: an objective of all of them, on stacked networks and batches."""

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from pipeline.compute import Runtime
from pipeline.models._base import ModelConfig
from pipeline.params import Family
from pipeline.training.objectives._base import Batch, Objective, objective_for

if TYPE_CHECKING:
    from pipeline.training.state import State


class Fused(Objective):
    """Lets a family's objective take its steps on R replicas at once: its batches and numbers have R in front.

    No number of one replica depends on another's: losses are sums over replicas, whose gradients are each one's own.
    """

    def __init__(self, inner: Objective, replicas: int) -> None:
        super().__init__(inner.family, inner.config, inner.runtime)
        self.inner, self.replicas = inner, replicas
        self.kind, self.loss, self.updates = inner.kind, inner.loss, inner.updates
        self.columns = tuple(f"{name}@{replica}" for replica in range(replicas) for name in inner.columns)

    @property
    def noise(self) -> int:
        return self.inner.noise

    def networks(self) -> dict[str, nn.Module]:
        """Build those of one replica."""
        return self.inner.networks()

    def step(self, state: "State", batch: Batch) -> Tensor:
        return self.inner.step(state, batch).flatten()

    def members(self, state: "State") -> list[dict[str, nn.Module]]:
        kept: dict[str, Any] = {"generator": state.average}
        if "discriminator" in state.networks:
            kept["discriminator"] = state.networks["discriminator"]
        return [{role: network.replica(r) for role, network in kept.items()} for r in range(self.replicas)]


def objective_of(family: Family, config: ModelConfig, runtime: Runtime, replicas: int) -> Objective:
    """Return what trains one member of a family, or several replicas as one."""
    objective = objective_for(family, config, runtime)
    return objective if replicas == 1 else Fused(objective, replicas)


def can_fuse(family: Family) -> bool:
    """Whether a family's replicas are independent of each other, and its objective runs stacked."""
    return family.replicas > 1 and family.scheme in ("independent", "bagging") and family.discriminators == 1
