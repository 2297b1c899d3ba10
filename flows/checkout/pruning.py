"""What a checkout needs no more: checkpoints of recipes that are gone, old experiments, old objects of DVC's cache.

What the registry refers to always stays: the commits that its versions were made from, with all that their `dvc.lock`
names.
"""

import contextlib
import shutil
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from flows.checkout.git import LOCK
from flows.checkout.programs import git
from pipeline.errors import ChorusError
from pipeline.exclusive import FOLDER
from pipeline.lineage import NOT_OF_THE_MODEL, entries_hash
from pipeline.params import Params

DAY = 24 * 3600.0


def old_checkpoints(root: Path, params: Params, days: float) -> list[Path]:
    """Return the folders of checkpoints and of fetched weights to remove.

    All of them have not been written to for so many days. Of families and students that params.yaml does not name any
    more the whole folder goes, of others those of single members, which belong to one recipe each, and of fetched
    weights those that nothing starts from.
    """
    oldest = time.time() - days * DAY
    named = {*params.families, *params.students}
    recipes = [*params.families.values(), *params.students.values()]
    pinned = {recipe.warm_start.content for recipe in recipes if recipe.warm_start}
    found: list[Path] = []
    for folder in sorted((root / ".checkpoints").glob("*")):
        found += sorted(folder.glob("*/*")) if folder.name in named else [folder]
    found += [path for path in sorted((root / ".warm").glob("*")) if path.name not in pinned]
    return [path for path in found if path.is_dir() and _touched(path) < oldest]


def old_experiments(root: Path, days: float) -> list[Path]:
    """Return the worktrees of experiments in which nothing has been written for so many days."""
    oldest = time.time() - days * DAY
    return [path for path in sorted((root / FOLDER / "experiments").glob("*")) if _touched(path) < oldest]


def _touched(folder: Path) -> float:
    """When something below a folder was last written; what links lead to is not below it."""
    return max(path.lstat().st_mtime for path in [folder, *folder.rglob("*")])


def commits_of_versions(root: Path, versions: Collection[Any]) -> list[str]:
    """Return the commits that hold what the versions were made from.

    The commit that a version names is the one that its run began with; what the run made was committed after it, if at
    all, so commits whose `dvc.lock` says the same as the version's belong to them too.
    """
    began = {version.tags.get("chorus.commit", "") for version in versions}
    locks = {version.tags.get("chorus.lock", "") for version in versions}
    with_lock = git(root, "log", "--all", "--format=%H", "--", LOCK).split()
    made = [commit for commit in with_lock if _lock_hash(root, commit) in locks]
    there = set(git(root, "rev-list", "--all").split())
    return sorted({*made, *(began & there)})


def _lock_hash(root: Path, commit: str) -> str:
    """Return what a version whose results a commit holds says of its lock entries; nothing where it holds none."""
    try:
        content = yaml.safe_load(git(root, "show", f"{commit}:./{LOCK}"))
    except (ChorusError, yaml.YAMLError):
        return ""
    stages: Mapping[str, Any] = (content or {}).get("stages") or {}
    return entries_hash({name: entry for name, entry in stages.items() if name not in NOT_OF_THE_MODEL})


def used_objects(root: Path, commits: Collection[str], without: Collection[Path] = ()) -> set[Any]:
    """Return the objects of DVC's cache that the checkout or one of the commits names.

    Other worktrees of the same repository may use the same cache, so what they name is among them. without: worktrees
    that are about to go. Raises `ChorusError` where one of the others cannot be read.
    """
    gone = {path.resolve() for path in without}
    return _named(root, commits).union(*(_named(other) for other in _worktrees(root) if other not in gone))


def _named(checkout: Path, commits: Collection[str] = ()) -> set[Any]:
    """Return the objects that a checkout names, and that commits do."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with contextlib.chdir(checkout), Repo(_wait_for_lock=True) as repo:
            return set().union(*repo.used_objs(revs=list(commits) or None).values())
    except DvcException as error:
        remedy = "mend it, or remove it if it is a worktree that nobody needs (`git worktree remove --force`)"
        raise ChorusError(f"what {checkout} needs of DVC's cache cannot be told ({error}); {remedy}") from None


def collect_cache(root: Path, used: Collection[Any], days: float, *, dry: bool) -> int:
    """Remove from DVC's cache what is not among the used objects and is older than so many days; return how many."""
    from dvc.repo import Repo
    from dvc_data.hashfile.gc import gc

    with contextlib.chdir(root), Repo(_wait_for_lock=True) as repo, repo.lock:
        cache = repo.cache.local
        used = {*used, *_named(root), *_young(cache, time.time() - days * DAY)}  # with what came since by hand
        return int(gc(cache, used, dry=dry) or 0)


def _young(cache: Any, oldest: float) -> set[Any]:
    """Return the objects of a cache written since `oldest` (seconds since 1970), with what folders among them list."""
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree
    from dvc_objects.errors import ObjectFormatError

    written = (oid for oid in cache.all() if Path(cache.oid_to_path(oid)).stat().st_mtime >= oldest)
    young = {HashInfo(cache.hash_name, oid) for oid in written}
    for folder in [found for found in young if found.isdir]:
        with contextlib.suppress(ObjectFormatError):  # a damaged one lists nothing
            young |= {content for _, _, content in Tree.load(cache, folder)}
    return young


def _worktrees(root: Path) -> list[Path]:
    """Return the folders of the repository's other worktrees that hold the project."""
    lines = git(root, "worktree", "list", "--porcelain").splitlines()
    folders = [Path(line.removeprefix("worktree ")) for line in lines if line.startswith("worktree ")]
    return [folder for folder in folders if folder != root.resolve() and (folder / ".dvc").is_dir()]


def remove_experiments(root: Path, folders: Collection[Path]) -> None:
    """Remove worktrees from the disk and from git's list, and what a kill left of one."""
    aside = root / FOLDER / "removed"
    for folder in folders:
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)  # half a worktree under its old name could not be read, and would look young
    shutil.rmtree(aside, ignore_errors=True)
    git(root, "worktree", "prune")


def remove_folders(folders: Collection[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder)
