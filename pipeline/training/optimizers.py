"""Optimisers by the names that `params.Family.optimizer` allows."""

from torch import nn
from torch.optim import SGD, Adam, Optimizer

from pipeline.params import Family


def build_optimizer(network: nn.Module, family: Family, lr: float) -> Optimizer:
    """Return a fused optimiser of all parameters: Adam with the family's `betas`, or SGD with its `momentum`."""
    if family.optimizer == "sgd":
        return SGD(network.parameters(), lr=lr, momentum=family.momentum, fused=True)
    return Adam(network.parameters(), lr=lr, betas=family.betas, fused=True)
