"""Networks of one kind side by side, as one module whose tensors have the replicas as their first dimension."""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import ParametrizationList

PRODUCTS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


class ByName(nn.Module):
    """Calls a method of a network by its name, so that `functional_call` reaches others than `forward`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, name: str, *arguments: Any) -> Any:
        return getattr(self.network, name)(*arguments)


class Stacked(nn.Module):
    """R networks that run as one: their kernels are launched once for all of them (Wang et al. 2021, "Horizontally
    Fused Training Array").

    Each parameter and buffer is R×its own shape; what goes in and comes out is R×B×…. What an optimiser or a moving
    average does to each number by itself, it does to the replicas alike. Random numbers inside (dropout) are drawn for
    each replica, but not those that it would draw alone.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        """networks: of one structure, on one device. Theirs are copied."""
        super().__init__()
        self.replicas = len(networks)
        tensors = zip(*(network.parameters() for network in networks), strict=True)
        buffers = zip(*(network.buffers() for network in networks), strict=True)
        memo: dict[int, Any] = {id(same[0]): nn.Parameter(stack(same)) for same in tensors}
        memo |= {id(same[0]): stack(same) for same in buffers}
        self.calls = ByName(copy.deepcopy(networks[0], memo))
        self.halved: list[str] = []  # parameters that multiply in autocast's precision
        for place, module in self.calls.named_modules():
            if isinstance(module, PRODUCTS):
                self.halved += [name for name, _ in module.named_parameters(place, recurse=False)]
                module.register_forward_pre_hook(to_precision)
            elif isinstance(module, _BatchNorm):
                module.register_forward_pre_hook(to_fp32)
                module.register_forward_hook(to_autocast)
            elif isinstance(module, nn.GroupNorm):
                module.register_forward_pre_hook(to_contiguous)
            elif isinstance(module, ParametrizationList):
                module.register_forward_hook(to_autocast)

    def replica(self, index: int) -> nn.Module:
        """Return one of the networks by itself; its tensors share their memory with the stack's."""
        memo: dict[int, Any] = {
            id(same): nn.Parameter(same.detach()[index], requires_grad=same.requires_grad) for same in self.parameters()
        }
        memo |= {id(same): same[index] for same in self.buffers()}
        network: nn.Module = copy.deepcopy(self.calls.network, memo)
        return network

    def call(self, name: str, *arguments: Tensor | None) -> Any:
        """Call a method of all networks, each with its part of the arguments and of the results."""
        tensors: dict[str, Tensor] = {**dict(self.calls.named_parameters()), **dict(self.calls.named_buffers())}
        # Autocast does not reach into `vmap`: what it would do is done by hand, here and in the hooks below.
        if dtype := precision(next(self.parameters())):
            tensors |= {name: tensors[name].to(dtype) for name in self.halved}
        own = [argument for argument in arguments if argument is not None]

        def one(tensors: dict[str, Tensor], *given: Tensor) -> Any:
            left = iter(given)
            every = [None if argument is None else next(left) for argument in arguments]
            return functional_call(self.calls, tensors, (name, *every))

        return vmap(one, randomness="different")(tensors, *own)

    def forward(self, *arguments: Tensor | None) -> Any:
        return self.call("forward", *arguments)

    def __getattr__(self, name: str) -> Any:
        """Other methods of the networks run stacked as well; their buffers are found stacked."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            calls: Any = super().__getattr__("calls")
            found = getattr(calls.network, name)
            return partial(self.call, name) if callable(found) else found

    def mapped(self, function: Callable[[nn.Module, Mapping[str, Tensor]], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return a function of a network and its tensors by name, of all replicas, by names of tensors stacked."""
        network = self.calls.network
        tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        found: dict[str, Tensor] = vmap(partial(function, network))(tensors)
        return {f"calls.network.{name}": value for name, value in found.items()}


def precision(tensor: Tensor) -> torch.dtype | None:
    """Return what autocast multiplies in on a tensor's device, None where it is off."""
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def to_precision(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Multiply in autocast's precision."""
    dtype = precision(arguments[0])
    return arguments if dtype is None else (arguments[0].to(dtype), *arguments[1:])


def to_fp32(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Normalise in the statistics' own precision: stacked, torch takes no maps of another."""
    return (arguments[0].float(), *arguments[1:])


def to_contiguous(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Normalise in the default layout: stacked, torch knows no other here."""
    return (arguments[0].contiguous(), *arguments[1:])


def to_autocast(module: nn.Module, arguments: tuple[Tensor, ...], result: Tensor) -> Tensor:
    """Go on in autocast's precision."""
    dtype = precision(result)
    return result if dtype is None else result.to(dtype)


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """Stack equal shapes along a new first dimension; those of four dimensions each stay in channels_last."""
    tensors = [tensor.detach() for tensor in tensors]
    if tensors[0].dim() == 4:
        return torch.stack([tensor.permute(0, 2, 3, 1) for tensor in tensors]).permute(0, 1, 4, 2, 3)
    return torch.stack(tensors)


def parts_of(network: nn.Module) -> list[nn.Module]:
    """Return the networks that a stack is made of, sharing its memory, or a single network as it is."""
    return [network.replica(index) for index in range(network.replicas)] if isinstance(network, Stacked) else [network]
