"""What a result was made from: the commit, whether files differ from it, and the lock entries of the stages before."""

import hashlib
import json
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

LOCK = "dvc.lock"
UNKNOWN = "unknown"
NOT_OF_THE_MODEL = ("register", "gate")  # stages that took no part in making it


@dataclass(frozen=True)
class Lineage:
    """What git and DVC know of a result.

    commit: full hash, `unknown` outside git. changed: tracked files that differ from it, but for `dvc.lock`, which
    every run rewrites. lock: SHA-256 over the lock entries of the stages that made the result, `unknown` where there
    are none. outputs: DVC's hash of each path that those stages wrote.
    """

    commit: str
    changed: tuple[str, ...]
    lock: str
    outputs: Mapping[str, str]

    @property
    def dirty(self) -> bool:
        return bool(self.changed)


def read_lineage(root: Path, *without: str) -> Lineage:
    """Return the lineage of what is in the checkout `root`; without: stages that took no part in making it."""
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD").strip() or UNKNOWN
    changed = _git(root, "diff", "HEAD", "--name-only", "-z", "--relative", "--", ".", f":(exclude){LOCK}").split("\0")
    entries = lock_entries(root, without)
    outputs = {out["path"]: out["md5"] for entry in entries.values() for out in entry.get("outs", [])}
    return Lineage(commit, tuple(filter(None, changed)), entries_hash(entries), outputs)


def entries_hash(entries: Mapping[str, Any]) -> str:
    """Return the SHA-256 of lock entries, `unknown` where there are none."""
    # Sorted, for the order in the file follows the stages' completion.
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest() if entries else UNKNOWN


def origin(root: Path) -> str:
    """Return the address that the checkout was cloned from, nothing where there is none."""
    return _git(root, "remote", "get-url", "origin").strip()


def lock_entries(root: Path, without: Collection[str]) -> dict[str, Any]:
    """Return the entries of `dvc.lock` but those of some stages, none where there is no such file."""
    try:
        stages = yaml.safe_load((root / LOCK).read_text(encoding="utf-8"))["stages"]
    except FileNotFoundError:
        return {}
    return {name: entry for name, entry in stages.items() if name not in without}


def _git(root: Path, *arguments: str) -> str:
    """Return a git command's output, nothing where git or the repository is missing."""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout if done.returncode == 0 else ""
