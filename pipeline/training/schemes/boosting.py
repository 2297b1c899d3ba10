"""AdaGAN (Tolstikhin et al. 2017, "AdaGAN: Boosting Generative Models"): each member looks at what the others miss.

Member t joins the mixture of those before it with the weight β = 1/t (section 3.3's uniform choice), so that the
finished mixture draws all of them equally often. It is trained on images drawn by weights that are high where the
mixture so far puts little: those of the component that would bring the mixture closest to the data.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pipeline.models._base import ModelConfig, build_generator


def uniform_beta(member: int) -> float:
    """Return β of the member that is number `member`, counted from 1."""
    return 1 / member


def water_level(ratios: NDArray[np.float64], beta: float) -> float:
    """Return λ*, at which the weights of `image_weights` add up to 1 (equation 18).

    ratios: N estimates of h = dP_mixture/dP_data, not negative. beta: in (0, 1]. With the ratios in ascending order, λ*
    is (Nβ + (1-β)Σh) / k over the k smallest of them, for the largest k whose own (1-β)h is below it.
    """
    ground = np.sort((1 - beta) * ratios)
    levels = (len(ground) * beta + np.cumsum(ground)) / np.arange(1, len(ground) + 1)
    return float(levels[np.flatnonzero(levels > ground)[-1]])


def image_weights(ratios: NDArray[np.float64], beta: float) -> NDArray[np.float64]:
    """Return the weights of N images for the next member, adding up to 1: (λ* - (1-β)h)₊ / (Nβ) (equation 17).

    ratios, beta: as for `water_level`. An image that the mixture covers amply has weight 0, none more than 1/(Nβ) times
    λ*, which is at most 1 where the ratios average 1.
    """
    weights = np.maximum(water_level(ratios, beta) - (1 - beta) * ratios, 0)
    normalised: NDArray[np.float64] = weights / weights.sum()
    return normalised


def effective_size(weights: NDArray[np.float64]) -> float:
    """Return 1 / Σw² (Kish 1965): to how many equally weighted images N weights that add up to 1 amount."""
    return float(1 / np.square(weights).sum())


def mixture_of(members: Sequence[tuple[nn.Module, ModelConfig]]) -> tuple[nn.Module, ModelConfig]:
    """Return the mixture of all generators so far, in evaluation mode on their device, and its configuration.

    With β = 1/t all its weights are equal.
    """
    parts = tuple(config for _, config in members)
    lengths: list[Any] = [generator.latent for generator, _ in members]
    config = replace(
        ModelConfig("mixture", parts[0].channels, parts[0].size, 1 + max(lengths), parts[0].width),
        class_shares=parts[0].class_shares,
        parts=parts,
        weights=(1 / len(parts),) * len(parts),
    )
    mixture: Any = build_generator(config)
    for part, (generator, _) in zip(mixture.parts, members, strict=True):
        part.load_state_dict(generator.state_dict())
    device = next(members[0][0].parameters()).device
    return mixture.to(device).eval().requires_grad_(False), config
