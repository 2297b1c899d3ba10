"""Optimisers by the names that `params.Family.optimizer` allows."""

from torch import nn
from torch.optim import SGD, Adam, Optimizer

from pipeline.params import Family


def build_optimizer(network: nn.Module, family: Family, lr: float) -> Optimizer:
    """Return a fused optimiser of all parameters: Adam with the family's `betas`, or SGD with its `momentum`."""
    if family.optimizer == "sgd":
        return SGD(network.parameters(), lr=lr, momentum=family.momentum, fused=True)
    return Adam(network.parameters(), lr=lr, betas=family.betas, fused=True)


def slow_down(optimizer: Optimizer, times: int) -> None:
    """Set the learning rates to half of what the optimiser was built with, `times` times over."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * 0.5**times
