"""Stages undone as if they had never run: their outputs, lock entries, results in DVC's cache and registered model."""

import json
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

CACHE = Path(".dvc/cache")
MODEL_TABLES = ("registered_model_aliases", "model_version_tags", "model_versions", "registered_model_tags")


def undo(root: Path, stages: Sequence[str]) -> None:
    """Let the stages run again in earnest, with nothing of theirs left to be restored."""
    lock = yaml.safe_load((root / "dvc.lock").read_text())
    undone = {name: lock["stages"].pop(name) for name in stages}
    kept = {oid for entry in lock["stages"].values() for oid in objects(root, entry)}
    for entry in undone.values():
        for oid in {*objects(root, entry)} - kept:
            cached(root, oid).unlink(missing_ok=True)
        for out in entry["outs"]:
            remove(root / out["path"])
    commands = {entry["cmd"] for entry in undone.values()}
    for path in list((root / CACHE / "runs").glob("*/*/*")):
        if yaml.safe_load(path.read_text())["cmd"] in commands:
            shutil.rmtree(path.parent, ignore_errors=True)
    (root / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
    if "register" in undone and (root / "mlflow.db").exists():
        forget_models(root / "mlflow.db")


def objects(root: Path, entry: dict[str, Any]) -> Iterator[str]:
    """Yield the names in DVC's cache of what a lock entry's outputs hold."""
    for out in entry["outs"]:
        yield out["md5"]
        if out["md5"].endswith(".dir") and cached(root, out["md5"]).exists():
            yield from (file["md5"] for file in json.loads(cached(root, out["md5"]).read_text()))


def cached(root: Path, oid: str) -> Path:
    return root / CACHE / "files" / "md5" / oid[:2] / oid[2:]


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def forget_models(store: Path) -> None:
    """Empty the registry."""
    with sqlite3.connect(store) as database:
        for table in (*MODEL_TABLES, "registered_models"):
            database.execute(f"DELETE FROM {table}")
