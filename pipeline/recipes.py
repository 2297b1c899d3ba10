"""From a recipe and a folder of snapshots to a sampler."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import ChorusError
from pipeline.fusion.kinds import Loader, build_sampler
from pipeline.fusion.samplers import Sampler
from pipeline.weights import load_discriminator, load_generator

CANDIDATE_ID = re.compile(r"[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*){2}")


def load_sampler(recipe: dict[str, Any], find: Callable[[str], Path], device: torch.device | str = "cpu") -> Sampler:
    """Build a recipe's sampler from snapshots.

    find: maps a candidate's id to the folder of its snapshot (`folder.joinpath`, `Project.snapshot`).
    Raises `ChorusError` for what is no id, so that a recipe names nothing outside the folder that is searched.
    """

    def folder(name: str) -> Path:
        if not CANDIDATE_ID.fullmatch(name):
            raise ChorusError(f"{name!r} is not the id of a candidate (FAMILY/MEMBER/SNAPSHOT)")
        return find(name)

    load = Loader(
        generator=lambda name: load_generator(folder(name), device)[0],
        discriminator=lambda name: load_discriminator(folder(name), device),
    )
    return build_sampler(recipe, load, device)
