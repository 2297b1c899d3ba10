"""What the head hands to nodes, and what it refuses to begin with: the checks before the first stage is sent."""

import contextlib
import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flows.checkout.git import LOCK
from flows.checkout.programs import git
from pipeline.errors import ChorusError

NEWCOMER = "?? "  # how git marks what it does not know
# Where stages report to. What else a node needs, its credentials for the remote above all, it has by itself.
HANDED_ON = ("MLFLOW_", "CHORUS_")
LOCAL_STORES = ("", "file", "sqlite")


@dataclass(frozen=True)
class Handover:
    """What is the same for all stages of a run.

    commit: of the checkout. remote: name and settings of the DVC remote. cargo: what a node's `Station` unpacks.
    at_home: the stages that can run on the head alone, each with the reason.
    """

    commit: str
    remote: tuple[str, Mapping[str, Any]] = field(repr=False)
    at_home: Mapping[str, str]
    cargo: bytes = field(repr=False)


def prepare(root: Path) -> Handover:
    """Return what nodes need of the checkout at `root`.

    Raises `ChorusError` where it has no DVC remote that can be used, where files differ from the commit, and where
    MLflow's store is a file of this machine.
    """
    from dvc.repo import Repo

    check_tracking(os.environ)
    with contextlib.chdir(root), Repo(_wait_for_lock=True) as repo:
        remote = usable_remote(repo.config)
        tracked = git(root, "ls-files", "-z", "--", ".").split("\0")
        at_home = {stage.name: why for stage in repo.index.stages if stage.cmd and (why := only_here(stage, tracked))}
        sent = [stage for stage in repo.index.stages if stage.cmd and stage.name not in at_home]
        read = {str(dep) for stage in sent for dep in stage.deps}
    refuse_changes(git(root, "status", "--porcelain", "--untracked-files=all", "--", ".").splitlines(), read)
    return Handover(git(root, "rev-parse", "HEAD").strip(), remote, at_home, pack(root))


def check_tracking(environment: Mapping[str, str]) -> None:
    """Refuse an MLflow store that only this machine can reach."""
    if urlsplit(environment.get("MLFLOW_TRACKING_URI", "")).scheme in LOCAL_STORES:
        raise ChorusError(
            "stages on other machines cannot write to an MLflow store in a file of this one: start `mlflow server` "
            "where all nodes reach it and set MLFLOW_TRACKING_URI to its address"
        )


def usable_remote(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return name and settings of the default remote of a DVC configuration; paths in it are absolute."""
    name = config["core"].get("remote")
    if not name:
        raise ChorusError(
            "the nodes of a cluster exchange results through a DVC remote, and there is none: "
            "`dvc remote add --default NAME s3://BUCKET/PATH` (or a folder that all machines see)"
        )
    settings = {key: value for key, value in config["remote"][name].items() if value is not None}
    if urlsplit(settings["url"]).scheme in ("http", "https"):
        raise ChorusError(
            f"the DVC remote '{name}' is reached over http, which cannot carry the run cache; use an object store, ssh "
            "or a folder that all machines see"
        )
    return name, settings


def only_here(stage: Any, tracked: Iterable[str]) -> str:
    """Return why a stage of DVC's index can run on the head alone; empty where another machine can take it."""
    if kept := [str(out) for out in stage.outs if not out.use_cache]:
        return f"{kept[0]} is not kept in DVC's cache"
    made = [out.fs_path for other in stage.repo.index.stages for out in other.outs]
    for dep in stage.deps:
        path = Path(dep.fs_path)
        known = any(_below(path, Path(out)) or _below(Path(out), path) for out in made)
        if not known and not any(_below(Path(name).absolute(), path) for name in tracked if name):
            return f"{dep} is not in git"
    return ""


def _below(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents


def refuse_changes(status: Iterable[str], read: Iterable[str]) -> None:
    """Raise `ChorusError` where the commit is not what is here.

    status: lines of `git status --porcelain`. read: paths that the stages depend on; new files elsewhere do not matter.
    """
    folders = [Path(name) for name in read]
    changed = []
    for line in status:
        mark, name = line[:3], line[3:].split(" -> ")[-1].strip('"')
        if name == LOCK or (mark == NEWCOMER and not any(_below(Path(name), folder) for folder in folders)):
            continue
        changed.append(name)
    if changed:
        shown = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
        raise ChorusError(
            f"other machines work on a commit, and here these files differ from the last one: {shown}; commit or stash "
            "them (`--commit` commits new pins by itself), and run experiments (--families, --budget-factor) without "
            "--runner ray"
        )


def pack(root: Path) -> bytes:
    """Return a tar archive with this commit as a bare repository, without its past, and the program for nodes."""
    import flows
    import pipeline

    archive = io.BytesIO()
    with tempfile.TemporaryDirectory(prefix="chorus-") as temporary, tarfile.open(fileobj=archive, mode="w") as tar:
        bare = Path(temporary) / "repository"
        clone = ["git", "clone", "--quiet", "--bare", "--depth", "1", root.resolve().as_uri(), str(bare)]
        done = subprocess.run(clone, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ChorusError(f"git clone: {done.stderr.strip()}")
        tar.add(bare, "repository")
        for package in (flows, pipeline):
            folder = Path(str(package.__file__)).parent
            tar.add(folder, f"program/{folder.name}", filter=_source)
    return archive.getvalue()


def _source(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in entry.name else entry
