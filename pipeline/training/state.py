"""Everything that changes while members train together, and its form as plain tensors and JSON."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.training.optimizers import slow_down

Row = dict[str, float]


def rows_of(rows: list[Row], member: int) -> list[Row]:
    """Return a member's own rows of a history: `loss@1` is member 1's `loss`, a name without `@` is everybody's."""
    suffix = f"@{member}"
    return [{k.removesuffix(suffix): v for k, v in row.items() if "@" not in k or k.endswith(suffix)} for row in rows]


@dataclass
class State:
    """A member in training, or several that train together.

    networks: `generator` and its partners, by role. average: the generator's moving average, whose buffers fit
    its weights where `snapshot` is set. profiles: its power-function averages by their relative width, where they are
    kept; their parameters alone mean something. columns: names of the losses in `sums`, which adds up `steps` steps
    since the last row. nimg: images seen. row: the row of the history that the last step completed, if any. snapshot:
    whether the last step ends at a snapshot. healthy: whether it ended with an examination that found nothing.
    suspicions: examinations in a row, up to now, that found the output collapsed. variety: the largest variance of the
    output until the first healthy examination, after which it is None. incidents: `{nimg, reason}` of
    each time that the training failed and went back; each halved the learning rates. micro: how many images of a batch
    are computed at once, where memory was short (None: all of them). partial: whether further parts of the batch follow
    before networks change.
    """

    networks: dict[str, nn.Module]
    average: nn.Module
    optimizers: dict[str, Optimizer]
    columns: tuple[str, ...]
    sums: Tensor
    steps: int = 0
    nimg: int = 0
    history: list[Row] = field(default_factory=list)
    row: Row | None = None
    snapshot: bool = False
    healthy: bool = False
    suspicions: int = 0
    variety: float | None = None
    incidents: list[dict[str, Any]] = field(default_factory=list)
    profiles: dict[float, nn.Module] = field(default_factory=dict)
    micro: int | None = None
    partial: bool = False

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors on the CPU by name, each with storage of its own."""
        found = {"sums": self.sums}
        for role, module in self._modules().items():
            found |= {f"{role}/{name}": value for name, value in module.state_dict().items()}
        for role, optimizer in self.optimizers.items():
            for index, parameter in enumerate(_parameters(optimizer)):
                slots = optimizer.state.get(parameter, {})
                named = {f"optimizer/{role}/{index}/{slot}": value for slot, value in slots.items()}
                found |= {name: value for name, value in named.items() if isinstance(value, Tensor)}
        return {name: value.detach().cpu().contiguous().clone() for name, value in found.items()}

    def progress(self) -> dict[str, Any]:
        """Return what is not a tensor, as JSON."""
        return {
            "nimg": self.nimg,
            "steps": self.steps,
            "history": self.history,
            "suspicions": self.suspicions,
            "variety": self.variety,
            "incidents": self.incidents,
            "micro": self.micro,
        }

    def restore(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        """Take over what `tensors` and `progress` of an equally built state returned.

        Raises KeyError or RuntimeError where they belong to other networks.
        """
        for role, module in self._modules().items():
            module.load_state_dict(_below(tensors, f"{role}/"))
        for role, optimizer in self.optimizers.items():
            for index, parameter in enumerate(_parameters(optimizer)):
                slots = _below(tensors, f"optimizer/{role}/{index}/")
                optimizer.state[parameter] = {slot: _like(value, parameter) for slot, value in slots.items()}
        self.sums.copy_(tensors["sums"])
        self.nimg, self.steps = int(progress["nimg"]), int(progress["steps"])
        self.history, self.suspicions = list(progress["history"]), int(progress["suspicions"])
        self.variety, self.micro = progress["variety"], progress["micro"]
        self.set_incidents(progress["incidents"])

    def set_incidents(self, incidents: list[dict[str, Any]]) -> None:
        """Take over a list of incidents, and the learning rates that follow from its length."""
        self.incidents = list(incidents)
        for optimizer in self.optimizers.values():
            slow_down(optimizer, len(incidents))

    def history_of(self, member: int) -> list[Row]:
        """Return the history of one of the members, counted from 0."""
        return rows_of(self.history, member)

    def _modules(self) -> dict[str, nn.Module]:
        profiles = {f"profile{width:g}": profile for width, profile in self.profiles.items()}
        return {**self.networks, "average": self.average, **profiles}


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """Copy `value` to the parameter's device and, where it has its shape, to its memory layout."""
    shape_of = parameter if value.shape == parameter.shape else value
    return torch.empty_like(shape_of, device=parameter.device, dtype=value.dtype).copy_(value)
