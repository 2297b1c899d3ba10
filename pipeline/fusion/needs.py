"""What networks a recipe takes, read off the recipe alone: torch, which those who only compare recipes do without, is
not imported.
"""

import re
from typing import Any

from pipeline.errors import ChorusError

ID = re.compile(r"[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*){1,2}")


def networks_of(recipe: dict[str, Any]) -> dict[str, set[str]]:
    """Return what a recipe needs: by a candidate's id `generator`, `discriminator` or both; a companion's `model`.

    The names are those of folders: raises `ChorusError` for one that leads anywhere else.
    """
    needed: dict[str, set[str]] = {}
    if recipe["kind"] == "candidate":
        needed[recipe["id"]] = {"generator"}
    for name in recipe.get("companions", {}).values():
        needed[name] = {"model"}
    for name in recipe.get("critics", []):
        needed.setdefault(name, set()).add("discriminator")
    for name in needed:
        if not ID.fullmatch(name):
            raise ChorusError(f"the recipe names {name!r}, which is not the id of a candidate or of its companion")
    for inner in inner_of(recipe):
        for name, networks in networks_of(inner).items():
            needed.setdefault(name, set()).update(networks)
    return needed


def inner_of(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the recipes that a recipe is made of."""
    return [*recipe.get("parts", []), *([recipe["source"]] if "source" in recipe else [])]
