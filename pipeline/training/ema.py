"""Moving averages of a generator's weights, in fp32 whatever autocast does.

The plain one forgets exponentially and is what is sampled. Beside it two power-function averages may be kept (Karras,
Aittala, Lehtinen, Hellsten, Aila, Laine 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models",
section 3): those stored at snapshots can be combined into an average of any other length afterwards
(`pipeline.fusion.posthoc`).
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

PROFILES = (0.05, 0.10)  # relative widths of the power-function averages that training keeps, as in the paper
WIDEST = 12**-0.5  # relative width of the plain mean over the whole training, γ = 0


def ema_decay(batch: int, nimg: int, halflife: float, rampup: float | None) -> float:
    """Return β, the share of the old average that a step of `batch` images keeps after `nimg` images.

    halflife: in images; 0 keeps nothing. rampup: the half-life is at most this share of the images seen, so that
    short runs do not lag behind (Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative
    Models", appendix F; None: no such limit). β = 2^(-batch / half-life).
    """
    if rampup is not None:
        halflife = min(halflife, nimg * rampup)
    return 0.5 ** (batch / max(halflife, 1e-8))


def relative_width(gamma: float) -> float:
    """Return σ_rel of the power function with exponent γ: the standard deviation of its profile, as a share of t.

    The profile gives the weights at the time τ of a training of length t the weight (γ+1) τ^γ / t^(γ+1) (Karras et al.
    2024, section 3.1).
    """
    return float(np.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3))))


def exponent(sigma_rel: float) -> float:
    """Return γ ≥ 0 of the power function whose relative width is `sigma_rel`, in (0, `WIDEST`].

    It is the largest root of γ³ + 7γ² + (16 - σ⁻²)γ + 12 - σ⁻², which is `relative_width` solved for γ. Raises
    `ValueError` for other widths: no γ ≥ 0 has them.
    """
    if not 0 < sigma_rel <= WIDEST * (1 + 1e-12):
        raise ValueError(f"a relative width is above 0 and at most {WIDEST:.4f}, not {sigma_rel:g}")
    inverse = sigma_rel**-2
    return max(0.0, float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max()))


def power_decay(batch: int, nimg: int, gamma: float) -> float:
    """Return β of the step of `batch` images that ends after `nimg`: (1 - batch / nimg)^(γ+1), 0 at the first step.

    Karras et al. 2024, section 3.1, which counts steps where we count images. After each step the average is then that
    of the weights of all steps by the share of the profile that falls on each, exactly.
    """
    return float((1 - batch / nimg) ** (gamma + 1))


@torch.no_grad()
def update(average: list[Tensor], weights: list[Tensor], decay: float) -> None:
    """Move averages towards weights, parameter by parameter, in place: a ← βa + (1 - β)θ."""
    torch._foreach_lerp_(average, weights, 1 - decay)


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
