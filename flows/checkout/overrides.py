"""Runs with other parameters than the clone's: a few of the families, a part of the budget.

Each has a git worktree of its own in `.chorus/experiments`, so that the clone's files, lock entries and results stay
those of its own parameters. It shares DVC's cache, MLflow's store and the weights of warm starts: what either has
computed the other does not compute again. It registers its model under a name of its own, for its versions are no
successors of the clone's: they answer a question, and `candidate` and `champion` must not move for that.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from flows.checkout.git import PARAMS
from flows.checkout.pins import settle_warm_starts
from flows.checkout.programs import dvc, git
from flows.checkout.reaping import EXPERIMENTS
from pipeline.errors import ChorusError
from pipeline.files import write_text
from pipeline.params import parse_params
from pipeline.project import Project
from pipeline.tracking import Tracker, tracking_uri

TRACKING = "MLFLOW_TRACKING_URI"
SUFFIX = "-experiment"  # of the registered model's name
LONGEST = 80  # characters of a folder's name


@contextmanager
def experiment(
    project: Project, families: Collection[str], factor: float, say: Callable[[str], None]
) -> Iterator[Project]:
    """Yield the worktree in which a run with these families and this part of the budget is to take place.

    families: names; none means all. factor: what budgets are multiplied by. Raises `ChorusError` for unknown families
    and for a factor that is not positive.
    """
    text = (project.root / PARAMS).read_text(encoding="utf-8")
    changed = reduced(text, families, factor)
    folder = _worktree(project.root, name_of(families, factor), say)
    _share(project, folder)
    before = os.environ.get(TRACKING)
    os.environ[TRACKING] = tracking_uri(project.root)
    Tracker(project.root)  # a new store keeps its artefacts where it was first opened
    try:
        write_text(folder / PARAMS, changed)
        settle_warm_starts(Project.load(folder), say)  # by the clone's model
        write_text(folder / PARAMS, under_another_name((folder / PARAMS).read_text(encoding="utf-8")))
        inside = Project.load(folder)
        say(f"experiment in {folder}; its model is registered as {inside.params.register_.model}")
        yield inside
    finally:
        if before is None:
            del os.environ[TRACKING]
        else:
            os.environ[TRACKING] = before


def name_of(families: Collection[str], factor: float) -> str:
    """Return the name of the experiment's folder: the same overrides find what they have left there."""
    name = f"{'+'.join(sorted(families)) or 'all'}-x{factor:g}"
    if len(name) <= LONGEST:
        return name
    return f"{len(families)}-families-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def reduced(text: str, families: Collection[str], factor: float) -> str:
    """Return the text of a `params.yaml` with these families alone, and with their budgets times `factor`.

    A shared budget is cut so that each family's share of it is the one that it has, times `factor`. Students train for
    `factor` times as long too. The reference stays: distances could not be compared otherwise.
    """
    if not factor > 0:
        raise ChorusError(f"budget factor {factor:g}: a number above 0 is wanted")
    content = yaml.safe_load(text)
    known = parse_params(text).families
    if unknown := [name for name in families if name not in known]:
        raise ChorusError(f"params.yaml has no family '{unknown[0]}'; it has: {', '.join(known)}")
    kept = {name: recipe for name, recipe in content["families"].items() if name in families or not families}
    if budget := content.get("budget"):
        unit = "kimg" if budget.get("kimg") is not None else "tflop"
        budget[unit] = _times(budget[unit], factor * len(kept) / len(known))
        budget["families"] = len(kept)
    for recipe in [*kept.values(), *(content.get("students") or {}).values()]:
        if recipe.get("kimg"):
            recipe["kimg"] = _times(recipe["kimg"], factor)
    changed = yaml.safe_dump({**content, "families": kept}, sort_keys=False, allow_unicode=True)
    parse_params(changed)
    return changed


def under_another_name(text: str) -> str:
    """Return the text of a `params.yaml` with the name of an experiment's model."""
    content = yaml.safe_load(text)
    model = parse_params(text).register_.model.removesuffix(SUFFIX) + SUFFIX
    content["register"] = {**(content.get("register") or {}), "model": model}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _times(value: Any, factor: float) -> Any:
    """A number that is not changed stays as it is written: DVC then finds what was computed for it."""
    return value if factor == 1 else value * factor


def _worktree(root: Path, name: str, say: Callable[[str], None]) -> Path:
    """Make or refresh the experiment's worktree at the clone's last commit."""
    folder = root / EXPERIMENTS / name
    head = git(root, "rev-parse", "HEAD").strip()
    if git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", f":!{PARAMS}", ":!dvc.lock").strip():
        say(f"an experiment runs what is committed ({head[:9]}); the clone has changes that are not")
    if (folder / ".git").exists():
        git(folder, "checkout", "--quiet", "--force", "--detach", head)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        git(root, "worktree", "prune")
        git(root, "worktree", "add", "--quiet", "--force", "--detach", str(folder), head)
    return folder


def _share(project: Project, folder: Path) -> None:
    """Give the worktree the clone's cache, its configuration, its images and the weights of its warm starts."""
    local = project.root / ".dvc" / "config.local"
    if local.is_file():
        shutil.copy(local, folder / ".dvc" / "config.local")  # it may hold secrets: with its permissions
    cache = Path(dvc(project.root, "cache", "dir").strip())
    dvc(folder, "cache", "dir", "--local", str(project.root / cache))
    project.warm.mkdir(exist_ok=True)
    data = project.params.data
    paths = [Path(data.watch), *([data.root] if data.root else []), *project.params.reference.weights.values()]
    for path in [project.warm.relative_to(project.root), *paths]:
        here, there = project.root / path.expanduser(), folder / path.expanduser()
        if here.exists() and not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            there.symlink_to(here)
