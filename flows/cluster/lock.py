"""`dvc.lock` as it is handed to nodes, and the entries that come back from them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.checkout.git import LOCK
from pipeline.files import write_text


def read_lock(root: Path) -> str:
    """Return the text of `dvc.lock`, empty where there is none, at a moment when no other process writes it."""
    from dvc.repo import Repo

    path = root / LOCK
    with Repo(str(root), _wait_for_lock=True) as repo, repo.lock:
        return path.read_text(encoding="utf-8") if path.exists() else ""


def record_entry(root: Path, stage: str, entry: Mapping[str, Any]) -> None:
    """Put a stage's entry into `dvc.lock`; `dvc pull STAGE` then brings the outputs that it names.

    `dvc repro --pull` would find the same in the run cache, after copying all of that, and would compute the stage here
    where it does not find it.
    """
    from dvc.repo import Repo
    from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

    path = root / LOCK
    with Repo(str(root), _wait_for_lock=True) as repo, repo.lock:
        text = path.read_text(encoding="utf-8") if path.exists() else "schema: '2.0'\n"
        content = parse_yaml_for_update(text, str(path))
        content.setdefault("stages", {})[stage] = entry
        write_text(path, dumps_yaml(content))
