"""The weights of one member inside a registered version, with the discriminator that it was trained against."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline import registry
from pipeline.errors import ChorusError
from pipeline.files import file_hash, read_json
from pipeline.recipes import CANDIDATE_ID
from pipeline.tracking import Run, Tracker

# Folder of artefacts of the run that registered a version: what its members' training would go on with.
PARTNERS = "partners"
PARTNER = "discriminator.safetensors"
REMEDY = "let the warm start name another version (python -m flows.review moves aliases), a member or a file"
HASH = "chorus.partner."  # tags of that run: SHA-256 of a member's discriminator; what follows is the candidate's id


def keep_partners(run: Run, recipe: dict[str, Any], find: Callable[[str], Path]) -> None:
    """Store the discriminators of the members that a recipe draws from with the run that registers it.

    The version itself needs none to draw images, and keeps its content and its size. find: maps a candidate's id to
    the folder of its snapshot (`Project.snapshot`).
    """
    for name in shares(recipe):
        if (path := find(name) / PARTNER).exists():
            run.file(path, f"{PARTNERS}/{name}")
            run.client.set_tag(run.id, f"{HASH}{name}", file_hash(path))


def fetch_member(tracker: Tracker, model: str, number: str, architecture: str, folder: Path) -> bool:
    """Copy a snapshot out of a version into `folder`; return whether there is one of this architecture.

    Of several it is the one that the version draws most images from, the first by name where these are equal. Raises
    `ChorusError` where the version is not what was registered, or its discriminator not the one that was kept.
    """
    with tempfile.TemporaryDirectory(prefix="chorus-") as temporary:
        fetched, fault = registry.fetch_whole(tracker, model, number, Path(temporary))
        if fetched is None:
            raise ChorusError(f"version {number} of '{model}' is no start: {fault}; {REMEDY}")
        fused = fetched / "artifacts" / "fused"
        recipe = read_json(fused / "model.json")["recipe"]
        for name, _ in sorted(shares(recipe).items(), key=lambda item: (-item[1], item[0])):
            source = fused / "members" / name
            if read_json(source / "config.json")["model"]["architecture"] == architecture:
                for file in ("config.json", "generator.safetensors"):
                    shutil.copyfile(source / file, folder / file)
                _fetch_partner(tracker, model, number, name, folder)
                return True
    return False


def shares(recipe: dict[str, Any]) -> dict[str, float]:
    """Return how large a part of a recipe's images each candidate draws, by its id; those without a part are left out.

    What is averaged counts by its weight, what is chosen from by what it is drawn from.
    """
    found: dict[str, float] = {}
    for name, share in _leaves(recipe, 1.0):
        if share > 0 and CANDIDATE_ID.fullmatch(name):
            found[name] = found.get(name, 0.0) + share
    return found


def _leaves(recipe: dict[str, Any], share: float) -> Iterator[tuple[str, float]]:
    if recipe["kind"] == "candidate":
        yield recipe["id"], share
    parts = recipe.get("parts", [])
    weights = recipe.get("weights", [1.0] * len(parts))
    for part, weight in zip(parts, weights, strict=True):
        yield from _leaves(part, share * weight / sum(weights))
    if "source" in recipe:
        yield from _leaves(recipe["source"], share)


def _fetch_partner(tracker: Tracker, model: str, number: str, name: str, folder: Path) -> None:
    """Download the discriminator of a version's member, where the run that registered the version has kept it.

    One whose hash that run does not tell is left. Raises `ChorusError` for one with another hash.
    """
    run = tracker.client.get_model_version(model, number).run_id
    said = tracker.client.get_run(run).data.tags.get(f"{HASH}{name}")
    if said is None:
        return
    with tempfile.TemporaryDirectory(prefix="chorus-") as temporary:
        kept = registry.download(tracker, Path(temporary), run_id=run, artifact_path=f"{PARTNERS}/{name}")
        if kept is None or not (kept / PARTNER).is_file():
            return
        if file_hash(kept / PARTNER) != said:
            raise ChorusError(
                f"version {number} of '{model}' is no start: the discriminator of {name} in its run is damaged: its "
                f"hash is not the one that it was kept under; {REMEDY}"
            )
        shutil.copyfile(kept / PARTNER, folder / PARTNER)
