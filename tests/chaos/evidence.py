"""What a checkout holds in the end, to be compared with that of the undisturbed run, and what must not be left over."""

import hashlib
import json
import sqlite3
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.endtoend.checkout import reproducible

FOLDERS = ("data/raw", "data/prepared", "data/reference", "models", "evaluation", "report/figures")
ENDED = ("FINISHED", "FAILED", "KILLED")
OPEN = ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"]


def results(root: Path) -> dict[str, Any]:
    """Return the lock entries, the hash of each declared file that content determines, and what was registered."""
    registration = json.loads((root / "registration.json").read_text())
    lock = reproducible(yaml.safe_load((root / "dvc.lock").read_text())["stages"])
    files = [root / "report/metrics.json", *(path for name in FOLDERS for path in (root / name).rglob("*"))]
    hashes = {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file()
    }
    registered = {f"registered {key}": registration[key] for key in ("model", "content", "shipped")}
    return {**{f"lock entry {name}": entry for name, entry in lock.items()}, **hashes, **registered}


def differences(results: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Return in words how two results differ."""
    names = sorted({*results, *expected})
    what = {name: (name in results, name in expected) for name in names if results.get(name) != expected.get(name)}
    words = {(True, True): "differs", (True, False): "is new", (False, True): "is lost"}
    return [f"{name} {words[there]}" for name, there in what.items()]


def untracked_members(root: Path, store: Path) -> list[str]:
    """Return the members without a finished run, trained or reused, below the newest finished pipeline run."""
    rosters = [json.loads(path.read_text()) for path in root.glob("models/members/*/*/family.json")]
    members = {f"{roster['family']}/{member}" for roster in rosters for member in roster["members"]}
    newest = """SELECT run_uuid FROM runs JOIN tags USING (run_uuid) WHERE status = 'FINISHED' AND key = 'chorus.kind'
        AND value = 'pipeline' ORDER BY start_time DESC LIMIT 1"""
    below = f"""SELECT name FROM runs JOIN tags USING (run_uuid) WHERE status = 'FINISHED'
        AND key = 'mlflow.parentRunId' AND value = ({newest})"""
    return [f"{name} has no run" for name in sorted(members - {name for (name,) in ask(store, below)})]


def open_mlflow_runs(store: Path) -> list[str]:
    """Return the runs that MLflow believes to go on."""
    query = f"SELECT name, status FROM runs WHERE status NOT IN {ENDED}"
    return [f"MLflow has {name} as {status}" for name, status in ask(store, query)]


def ask(store: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as database:
        return database.execute(query).fetchall()


def open_prefect_runs(api: str) -> Iterator[str]:
    """Yield the flow runs and task runs that Prefect believes to go on.

    A task that could not begin stays PENDING for good: so Prefect calls one whose upstream did not complete.
    """
    for kind, states in {"flow_runs": OPEN, "task_runs": ["RUNNING"]}.items():
        body = json.dumps({kind: {"state": {"type": {"any_": states}}}, "limit": 50}).encode()
        request = urllib.request.Request(f"{api}/{kind}/filter", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as reply:
            yield from (f"Prefect has {run['name']} as {run['state_type']}" for run in json.load(reply))


def half_written(root: Path) -> list[str]:
    """Return temporary files and checkpoints that nothing needs any more."""
    folders = [root / name for name in ("data", "models", "evaluation", "report", ".checkpoints", ".chorus")]
    files = [path for folder in folders for path in folder.rglob("*")]
    left = [path for path in files if path.name.endswith((".tmp", ".removed")) or path.suffix == ".safetensors"]
    return [
        f"{path.relative_to(root)} is left over"
        for path in left
        if path.suffix != ".safetensors" or path.is_relative_to(root / ".checkpoints")
    ]
