"""Reasons to start a run before its time: other data, newer commits, images that have drifted."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.checkout.upstream import newer
from flows.stages.command import stage_environment
from pipeline.errors import ChorusError
from pipeline.files import write_text
from pipeline.project import Project

MARK = "images: "  # of the line in the watched file that says which images are to be read


@dataclass(frozen=True)
class Trigger:
    """Why a run is to start; two with one key are the same reason. parameters: of the run."""

    key: str
    why: str
    parameters: dict[str, Any] = field(default_factory=dict)


def new_data(project: Project, quiet_seconds: float) -> Trigger | None:
    """Return a trigger where what `data.watch` names is not what was read last, None while it still changes.

    quiet_seconds: for how long nothing in a folder may have changed, so that one that is being filled starts one run.
    """
    watch = project.root / project.params.data.watch
    if not watch.exists():
        raise ChorusError(f"data.watch: {str(watch)!r} does not exist")
    content = _unread(project)
    if content is None or (watch.is_dir() and time.time() - _last_change(watch) < quiet_seconds):
        return None
    lock = project.root / "dvc.lock"
    # The same content can come again after another; what was done in between has written the lock file.
    since = lock.stat().st_mtime_ns if lock.exists() else 0
    return Trigger(f"data-{content}-{since}", f"{project.params.data.watch} has changed")


def new_commit(project: Project) -> Trigger | None:
    """Return a trigger where the branch's upstream has commits that the clone lacks."""
    if commit := newer(project.root):
        return Trigger(f"upstream-{commit}", f"the upstream is at {commit[:9]}", {"update": True})
    return None


def drifted(project: Project) -> Trigger | None:
    """Return a trigger where the new images differ from those that were trained on by more than `flow.drift` allows.

    Its key is of what was trained on: until that is replaced, the same drift starts no second run.
    """
    command = [sys.executable, "-m", "pipeline", "drift"]
    environment = stage_environment(project.params.compute.threads)
    done = subprocess.run(command, cwd=project.root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChorusError(done.stderr.strip().removeprefix("chorus: ") or "python -m pipeline drift failed")
    found = json.loads(done.stdout.splitlines()[-1])
    return Trigger(f"drift-{found['reference']}", found["said"]) if found["drifted"] else None


def mark(project: Project, key: str) -> None:
    """Change the file that `data.watch` names, so that DVC sees new images; a folder of images changes by itself."""
    watch = project.root / project.params.data.watch
    if watch.is_file():
        lines = [line for line in watch.read_text(encoding="utf-8").splitlines() if not line.startswith(MARK)]
        write_text(watch, "\n".join([*lines, f"{MARK}{key}"]) + "\n")


def _unread(project: Project) -> str | None:
    """Return DVC's hash of what is watched, None where that is what the last `ingest` read."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with contextlib.chdir(project.root), Repo() as repo:
            deps = repo.stage.load_one("dvc.yaml", "ingest").deps
            (dep,) = (dep for dep in deps if dep.def_path == project.params.data.watch)
            found = dep.get_hash()
            return None if found == dep.hash_info else str(found.value)
    except DvcException as error:
        raise ChorusError(f"DVC cannot look at {project.params.data.watch}: {error}") from None


def _last_change(folder: Path) -> float:
    """Return when something below a folder last changed, in seconds since 1970.

    Copied files may keep the time at which their content was written, but not that at which they came.
    """
    return max(map(_changed_at, _below(folder)))


def _below(folder: Path) -> Iterator[Path]:
    for path, _, files in os.walk(folder):
        yield Path(path)
        yield from (Path(path, name) for name in files)


def _changed_at(path: Path) -> float:
    try:
        return path.lstat().st_ctime
    except FileNotFoundError:
        return time.time()
