"""From a recipe and a folder of snapshots to a sampler, and from a folder to the fused critic."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.errors import ChorusError
from pipeline.evaluation.saved import load_network
from pipeline.files import read_json
from pipeline.fusion.critic import FusedCritic, Reading
from pipeline.fusion.kinds import Loader, build_sampler
from pipeline.fusion.ratio import Ratio
from pipeline.fusion.samplers import Sampler
from pipeline.weights import SCHEMA, load_companion, load_discriminator, load_generator, load_state, read_content

CRITIC = "critic.json"
CANDIDATE_ID = re.compile(r"[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*){2}")
COMPANION_ID = re.compile(r"[a-z0-9][a-z0-9_-]*/[a-z0-9][a-z0-9_-]*")
EXTRACTORS, RATIOS = "extractors", "ratios"  # folders of companions: copies of data/reference's, and density ratios


def load_sampler(recipe: dict[str, Any], find: Callable[[str], Path], device: torch.device | str = "cpu") -> Sampler:
    """Build a recipe's sampler from snapshots.

    find: maps the id of a candidate or a companion to the folder of its networks (`folder.joinpath`,
    `Project.snapshot`). Raises `ChorusError` for what is no id, so that a recipe names nothing outside the folder that
    is searched.
    """

    def folder(name: str) -> Path:
        if not CANDIDATE_ID.fullmatch(name):
            raise ChorusError(f"{name!r} is not the id of a candidate (FAMILY/MEMBER/SNAPSHOT)")
        return find(name)

    def companion(name: str) -> nn.Module:
        if not COMPANION_ID.fullmatch(name):
            raise ChorusError(f"{name!r} is not the id of what a strategy made (FOLDER/NAME)")
        kind = name.partition("/")[0]
        if kind == EXTRACTORS:
            return load_network(find(name))[1].to(device)
        if kind == RATIOS:
            return load_ratio(find(name)).to(device)
        return load_companion(find(name), device)

    load = Loader(
        generator=lambda name: load_generator(folder(name), device)[0],
        discriminator=lambda name: load_discriminator(folder(name), device),
        companion=companion,
    )
    return build_sampler(recipe, load, device)


def load_ratio(folder: Path) -> nn.Module:
    """Load the density ratio of `ratios/NAME`; raises `ChorusError` for a schema newer than this code."""
    return load_state(folder / "model.safetensors", Ratio(**read_content(folder)["network"])).requires_grad_(False)


def load_critic(folder: Path, device: torch.device | str = "cpu") -> tuple[FusedCritic, str]:
    """Load the fused critic from its folder, and the rule by which it scores.

    The folder holds `critic.json` (schema, rule, critics with their readings) and `members/ID` with discriminators.
    """
    content = read_json(folder / CRITIC)
    if content.get("schema") != SCHEMA:
        raise ChorusError(f"{folder / CRITIC} has schema {content.get('schema')}, this code reads {SCHEMA}: update")
    for entry in content["critics"]:
        if not CANDIDATE_ID.fullmatch(entry["id"]):
            raise ChorusError(f"{entry['id']!r} is not the id of a candidate (FAMILY/MEMBER/SNAPSHOT)")
    networks = [load_discriminator(folder / "members" / entry["id"], device) for entry in content["critics"]]
    critic = FusedCritic(networks, [Reading.from_json(entry) for entry in content["critics"]])
    return critic.to(device).eval(), str(content["rule"])
