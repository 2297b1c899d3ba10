"""From the source of a warm start to a folder of weights that is named by its content."""

import shutil
import tempfile
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from pipeline import registry
from pipeline.errors import ChorusError
from pipeline.exits import lasts
from pipeline.files import tree_hash
from pipeline.params import WarmStart
from pipeline.pinning.versions import fetch_member
from pipeline.project import Project
from pipeline.tracking import Tracker

NETWORKS = ("generator", "discriminator")
FILES = ("config.json", *(f"{network}.safetensors" for network in NETWORKS))
COMMAND = "python -m pipeline pin"


def find(project: Project, family: str, wanted: WarmStart) -> WarmStart:
    """Return `wanted` pinned to what its source holds now, and keep these weights in `Project.warm`.

    A source that is an alias of the registered model may lead to nothing yet, to no version or to one without this
    architecture; then the content is None. Raises `ChorusError` for any other source without weights that a family of
    this architecture can start from, and for a version that is lost, damaged or altered.
    """
    project.warm.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=project.warm) as temporary:
        folder = Path(temporary) / "weights"
        folder.mkdir()
        version = _collect(project, family, wanted, folder)
        if not (folder / "generator.safetensors").exists():
            return wanted.model_copy(update={"version": None, "content": None})
        load(folder)
        content = tree_hash(folder)
        kept = project.warm / content
        if not kept.exists() or tree_hash(kept) != content:
            shutil.rmtree(kept, ignore_errors=True)
            try:
                folder.rename(kept)
            except OSError:  # meanwhile another family that starts from the same weights has fetched them
                if not kept.exists() or tree_hash(kept) != content:
                    raise
    return wanted.model_copy(update={"version": version, "content": content})


def provide(project: Project, family: str) -> dict[str, dict[str, Tensor]] | None:
    """Return the weights that a family is pinned to, by network and by name; None where it starts without.

    They are fetched again where this checkout has not got them. Raises `ChorusError` where the family is not pinned,
    or where the weights found are others than those it is pinned to.
    """
    wanted = project.params.families[family].warm_start
    if wanted is None:
        return None
    if not wanted.pinned:
        raise ChorusError(f"families.{family}.warm_start: {wanted.source} is not pinned; run `{COMMAND}`")
    if wanted.content is None:
        return None
    folder = project.warm / wanted.content
    if not folder.exists():
        now = find(project, family, wanted)
        if now.content != wanted.content:
            raise ChorusError(
                f"families.{family}.warm_start: {wanted} no longer holds the weights that it is pinned to "
                f"({wanted.content[:12]}…); run `{COMMAND} --refresh`"
            )
    if tree_hash(folder) != wanted.content:
        raise ChorusError(f"{folder} was altered: its content has another hash; remove it, it will be fetched again")
    return load(folder)


def load(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of a folder's networks; raises `ChorusError` for files that are no safetensors."""
    found = {}
    for network in NETWORKS:
        path = folder / f"{network}.safetensors"
        try:
            found[network] = load_file(path)
        except FileNotFoundError:
            continue
        except Exception as error:  # safetensors raises several kinds for damaged or foreign files
            raise ChorusError(f"a warm start's {path.name} holds no safetensors: {error}") from None
    return found


def _collect(project: Project, family: str, wanted: WarmStart, folder: Path) -> str | None:
    """Copy what the source holds into `folder`; return the number of the registered version that it was found in."""
    if wanted.kind == "member":
        _copy(_snapshot(project, wanted.source), folder, wanted.source)
    elif wanted.kind == "path":
        _copy(project.root / Path(wanted.source).expanduser(), folder, wanted.source)
    else:
        return _collect_version(project, family, wanted, folder)
    return None


def _collect_version(project: Project, family: str, wanted: WarmStart, folder: Path) -> str | None:
    model, tracker = project.params.register_.model, Tracker(project.root)
    moving = wanted.kind == "alias"
    number = wanted.version or wanted.source
    if moving and not wanted.version:
        found = registry.alias_number(tracker, model, wanted.source)
        if found is None:
            return None
        number = found
    architecture = project.params.families[family].architecture
    taken = fetch_member(tracker, model, number, architecture, folder)
    if not taken and not moving:
        raise ChorusError(
            f"families.{family}.warm_start: version {number} of '{model}' holds no member of the architecture "
            f"'{architecture}'"
        )
    return number


def _snapshot(project: Project, source: str) -> Path:
    """Return the folder of a member's snapshot, or of its last one where none is named."""
    family, member, *snapshot = source.split("/")
    for rung in reversed(project.rungs):
        folder = project.family_folder(family, rung) / member
        found = sorted(path for path in folder.glob(snapshot[0] if snapshot else "*") if path.is_dir())
        if found:
            return found[-1]
    raise ChorusError(f"warm_start: {source} is no member of this checkout; it has none in {project.members}")


def _copy(source: Path, folder: Path, name: str) -> None:
    """Copy a snapshot's files, or one file of a generator's weights."""
    try:
        files = {"generator.safetensors": source} if source.is_file() else {file: source / file for file in FILES}
        if not files["generator.safetensors"].is_file():
            raise ChorusError(f"warm_start: {name} is no file of weights and no folder with a generator.safetensors")
        for file, path in files.items():
            if path.is_file():
                shutil.copyfile(path, folder / file)
    except OSError as error:
        if not lasts(error):
            raise
        raise ChorusError(f"warm_start: {name} cannot be read: {error}") from None
