"""Warm starts: a member that has seen no image takes over what fits of the weights of another."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ChorusError
from pipeline.layers.stacked import parts_of
from pipeline.training.objectives.joint import Several
from pipeline.training.state import State

Weights = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Taken:
    """What became of one network's tensors: names of those that were taken over, and of those that keep their draws."""

    network: str
    taken: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.network} {len(self.taken)} of {len(self.taken) + len(self.left)} tensors"


def start(state: State, source: Weights) -> list[Taken]:
    """Put the weights of `source` into a state fresh from `build`, in place; return what became of each network.

    source: the tensors of `generator` and, where they are there, of its partners, by network and by name. A tensor is
    taken by the network and its moving average where name and shape are the same; all others keep what they were drawn
    with. Optimisers start fresh: no snapshot keeps their moments. Generators that train together each take the same.
    Raises `ChorusError` where no weight matrix of the generator fits: biases alone may do so by chance.
    """
    accounts = []
    for role, network in state.networks.items():
        tensors = source.get(role, {})
        both = [network, state.average] if role == "generator" else [network]
        found = [take(part, tensors) for module in both for part in _parts(module)]
        accounts.append(Taken(role, *found[0]))
    generator = next(account for account in accounts if account.network == "generator")
    if not any(source["generator"][name].ndim > 1 for name in generator.taken):
        raise ChorusError(
            "no layer of the weights to start from fits the family's generator; give the family the architecture, "
            "'width' and 'latent' that they were trained with, or remove its 'warm_start'"
        )
    return accounts


@torch.no_grad()
def take(network: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Copy the tensors that fit by name and shape into `network`; return the names of its own: copied, and left."""
    own: dict[str, Any] = network.state_dict()
    fitting = [name for name, value in own.items() if name in tensors and tensors[name].shape == value.shape]
    for name in fitting:
        own[name].copy_(tensors[name])
    return tuple(fitting), tuple(name for name in own if name not in set(fitting))


def _parts(network: nn.Module) -> list[nn.Module]:
    """The networks of one member each."""
    return list(network.parts) if isinstance(network, Several) else parts_of(network)
