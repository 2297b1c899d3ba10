"""The commit of `dvc.lock`."""

from pathlib import Path
from typing import Any

import yaml

from flows.checkout.programs import git
from flows.planning.graph import family
from pipeline.errors import ChorusError

LOCK = "dvc.lock"
PARAMS = "params.yaml"


def commit_lock(root: Path, metrics: dict[str, Any], registration: dict[str, Any]) -> str:
    """Commit `dvc.lock`, and nothing else, with a message that says what changed; return a line about what was done.

    metrics, registration: what `report/metrics.json` and `registration.json` hold, empty where they are missing.
    """
    if not git(root, "status", "--porcelain", "--", LOCK).strip():
        return f"nothing to commit: {LOCK} is as in the last commit"
    git(root, "add", "--", LOCK)
    git(root, "commit", "--quiet", "--message", lock_message(root, metrics, registration), "--only", "--", LOCK)
    subject = git(root, "log", "-1", "--format=%h %s").strip()
    others = [name for name in (PARAMS, "dvc.yaml") if git(root, "status", "--porcelain", "--", name).strip()]
    note = f" (not committed, and {LOCK} goes with them: {', '.join(others)})" if others else ""
    return f"committed {LOCK}: {subject}{note}"


def lock_message(root: Path, metrics: dict[str, Any], registration: dict[str, Any]) -> str:
    """Return a commit message from how `dvc.lock` differs from the committed one, and from the winner."""
    try:
        before = _stages(git(root, "show", f"HEAD:{LOCK}"))
    except ChorusError:
        before = {}
    after = _stages((root / LOCK).read_text(encoding="utf-8"))
    changed = [name for name in after if after[name] != before.get(name)]
    gone = [name for name in before if name not in after]
    families = sorted({name for stage in changed if (name := family(stage))})
    body = [f"Stages: {', '.join(changed)}"] if changed else []
    body += [f"Removed: {', '.join(gone)}"] if gone else []
    body += winner_lines(metrics, registration)
    subject = f"Retrain {', '.join(families)}" if families else f"Update {', '.join(changed) or LOCK}"
    if len(subject) > 72:
        subject = f"Retrain {len(families)} families" if families else f"Update {len(changed)} stages"
    return "\n".join([subject, "", *body]).rstrip()


def winner_lines(metrics: dict[str, Any], registration: dict[str, Any]) -> list[str]:
    """Return the winner and a student shipped in its place with their headline distances, and the registered version.

    Nothing for what is not known.
    """
    lines = []
    if winner := metrics.get("winner"):
        lines.append(f"Winner: {winner}{_distances(metrics, 'strategy', winner)}")
    if (shipped := metrics.get("shipped") or {}).get("kind") == "student":
        lines.append(f"Shipped: student {shipped['name']}{_distances(metrics, 'student', shipped['name'])}")
    if version := registration.get("version"):
        lines.append(f"Registered: {registration.get('model', 'model')} version {version}")
    return lines


def _distances(metrics: dict[str, Any], kind: str, name: str) -> str:
    arms = metrics.get("arms", [])
    found = (arm.get("metrics", {}) for arm in arms if (arm.get("kind"), arm.get("name")) == (kind, name))
    values: dict[str, float] = next(found, {})
    told = ", ".join(f"{key} {values[key]:.4g}" for key in metrics.get("headline", []) if key in values)
    return f" ({told})" if told else ""


def _stages(text: str) -> dict[str, Any]:
    return dict((yaml.safe_load(text) or {}).get("stages") or {})
