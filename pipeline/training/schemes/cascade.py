"""A cascade: each member refines the images of the one before it, G₂(G₁(z)), against a discriminator of its own."""

from dataclasses import replace
from typing import Any

from torch import nn

from pipeline.models._base import ModelConfig
from pipeline.training.state import State


def refined(config: ModelConfig, refiners: int) -> ModelConfig:
    """Return the configuration of the family's plain generator with so many refiners after it; 0: of itself."""
    if not refiners:
        return config
    refiner = ModelConfig("refiner", config.channels, config.size, config.latent, config.width)
    refiner = replace(refiner, class_shares=config.class_shares)
    return replace(config, architecture="cascade", parts=(config, *[refiner] * refiners))


def take_over(state: State, before: nn.Module) -> None:
    """Give a cascade at its start all parts but the last from the member before it, a plain generator or a cascade.

    They stay as they are while the last refiner is trained; the moving average has the same ones.
    """
    source: Any = before
    for cascade in (state.networks["generator"], state.average):
        own: Any = cascade
        if len(own.refiners) == 1:
            own.first.load_state_dict(source.state_dict())
        else:
            own.first.load_state_dict(source.first.state_dict())
            own.refiners[:-1].load_state_dict(source.refiners.state_dict())
