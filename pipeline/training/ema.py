"""Exponential moving average of a generator's weights, in fp32 whatever autocast does."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def ema_decay(batch: int, nimg: int, halflife: float, rampup: float | None) -> float:
    """Return β, the share of the old average that a step of `batch` images keeps after `nimg` images.

    halflife: in images; 0 keeps nothing. rampup: the half-life is at most this share of the images seen, so that
    short runs do not lag behind (Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative
    Models", appendix F; None: no such limit). β = 2^(-batch / half-life).
    """
    if rampup is not None:
        halflife = min(halflife, nimg * rampup)
    return 0.5 ** (batch / max(halflife, 1e-8))


@torch.no_grad()
def update(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average's parameters towards the network's, in place: a ← βa + (1 - β)θ; buffers stay as they are."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)


@torch.no_grad()
def settle_buffers(average: nn.Module, network: nn.Module, inputs: Iterable[tuple[Tensor | None, ...]]) -> None:
    """Give the average the buffers that fit its weights, in place, and leave it in evaluation mode.

    Batch-norm statistics are measured anew on the average's own maps over `inputs` (batches of latents and labels, each
    counts the same): those of the network belong to other weights. Brock, Donahue, Simonyan 2019, "Large Scale GAN
    Training for High Fidelity Natural Image Synthesis", call them standing statistics. All other buffers are the
    network's.
    """
    for mine, other in zip(average.buffers(), network.buffers(), strict=True):
        mine.copy_(other)
    average.train()
    # Parts that stay in evaluation mode whatever is asked of them are no longer trained: theirs are right.
    layers = [module for module in average.modules() if isinstance(module, _BatchNorm) and module.training]
    if layers:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # torch's sign for a plain mean over batches
        for arguments in inputs:
            average(*arguments)
    average.eval()
