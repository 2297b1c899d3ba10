"""The stages and their edges as DVC reads them from `dvc.yaml`; nothing here repeats the graph."""

import contextlib
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ChorusError
from pipeline.params import missing_sections


@dataclass(frozen=True)
class Stage:
    """One stage, the stages it reads from, and what DVC finds changed since it last ran.

    reasons: why DVC would not leave the stage alone, in words; empty where it is clean.
    cached: DVC holds the result for these very inputs, so that nothing would be computed.
    moved: its inputs or its command changed, so that its result may differ (and not merely be lost).
    bereft: nothing has changed but that inputs are missing, which stages above write.
    again: the recorded result is to be computed anew, though it is that of these inputs.
    """

    name: str
    upstream: tuple[str, ...]
    reasons: tuple[str, ...]
    cached: bool = False
    moved: bool = False
    bereft: bool = False
    again: bool = False


class Graph:
    """Stages in topological order, as `dvc.yaml` lists them where that leaves a choice."""

    def __init__(self, stages: Iterable[Stage]) -> None:
        self.stages: dict[str, Stage] = {stage.name: stage for stage in stages}

    def select(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the named stages in topological order; `train` names all of `train@…`, no name at all every stage.

        Raises `ChorusError` listing the known names for one that is unknown.
        """
        wanted: set[str] = set()
        for name in names:
            found = {stage for stage in self.stages if name in (stage, group(stage))}
            if not found:
                known = dict.fromkeys([*map(group, self.stages), *self.stages])
                raise ChorusError(f"dvc.yaml has no stage '{name}'; it has: {', '.join(known)}")
            wanted |= found
        return tuple(stage for stage in self.stages if stage in wanted or not wanted)

    def before(self, name: str, selected: Iterable[str]) -> tuple[str, ...]:
        """Return the selected stages that `name` waits for, looking through those that are not selected."""
        chosen, found, seen = set(selected), set(), set()
        open_ends = list(self.stages[name].upstream)
        while open_ends:
            stage = open_ends.pop()
            if stage in chosen:
                found.add(stage)
            elif stage not in seen:
                seen.add(stage)
                open_ends += self.stages[stage].upstream
        return tuple(stage for stage in self.stages if stage in found)

    def above(self, name: str) -> set[str]:
        """Return all stages that `name` depends on, directly or through others."""
        found: set[str] = set()
        open_ends = list(self.stages[name].upstream)
        while open_ends:
            stage = open_ends.pop()
            if stage not in found:
                found.add(stage)
                open_ends += self.stages[stage].upstream
        return found


def group(stage: str) -> str:
    """Return the name that the instances of a stage share: `train@mlp` belongs to `train`."""
    return stage.split("@", 1)[0]


def family(stage: str) -> str | None:
    """Return the family that a stage works on (`train@mlp`, `advance@later0-mlp`: `mlp`); None for all others."""
    stage, _, name = stage.partition("@")
    if stage in ("train", "evaluate"):
        return name
    return re.sub(r"^later\d+-", "", name) if stage in ("advance", "evaluate-later") else None


def require_checkout(root: Path) -> None:
    """Raise `ChorusError` where `root` is no git checkout with DVC and a `dvc.yaml`."""
    for name, remedy in {".git": "git clone", ".dvc": "dvc init", "dvc.yaml": "run in the project's folder"}.items():
        if not (root / name).exists():
            raise ChorusError(f"{root} has no {name}, so it is no checkout of the project ({remedy})")


def rung(stage: str) -> int:
    """Return the rung of a race that a stage on a family belongs to: 1, or for `…@later0-mlp` 2."""
    later = re.match(r"later(\d+)-", stage.partition("@")[2])
    return int(later[1]) + 2 if later else 1


def trains(stage: str) -> bool:
    """Whether a stage trains members of a family."""
    return group(stage) in ("train", "advance")


def read_graph(root: Path) -> Graph:
    """Ask DVC for the graph of the checkout at `root` and for what has changed in it.

    Raises `ChorusError` where `root` is no checkout, or where DVC cannot read its `dvc.yaml`.
    """
    require_checkout(root)
    import networkx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    # DVC would announce what it only looks up here.
    logging.getLogger("dvc").setLevel(logging.WARNING)
    try:
        # Another dvc may hold the repository's lock for the moment. Look-ups in DVC's cache need the folder.
        with contextlib.chdir(root), Repo(_wait_for_lock=True) as repo:
            status = repo.status()
            # DVC's edges point from a stage to those it depends on.
            graph = repo.index.graph.reverse()
            place = {stage: number for number, stage in enumerate(repo.index.stages)}
            order = networkx.lexicographical_topological_sort(graph, key=place.__getitem__)
            return Graph([_stage(repo, stage, graph, status) for stage in order if stage.cmd])
    except DvcException as error:
        missing = missing_sections(root / "params.yaml")
        hint = f" (params.yaml has no {', '.join(missing)}; README.md has the defaults)" if missing else ""
        raise ChorusError(f"DVC cannot read the graph of {root}: {error}{hint}") from None


def _stage(repo: Any, stage: Any, graph: Any, status: Mapping[str, Any]) -> Stage:
    changes = status.get(stage.addressing, [])
    upstream = [up for up in graph.predecessors(stage) if up.cmd]
    names = tuple(sorted(map(_name, upstream)))
    reasons = tuple(_reasons(stage, changes))
    moved = any(not isinstance(change, dict) or "changed deps" in change for change in changes)
    made_above = {str(out) for up in upstream for out in up.outs}
    bereft = moved and all(
        isinstance(change, dict)
        and list(change) == ["changed deps"]
        and all(what == "deleted" and path in made_above for path, what in change["changed deps"].items())
        for change in changes
    )
    cached = bool(changes) and _is_cached(repo, stage, moved)
    return Stage(_name(stage), names, reasons, cached, moved, bereft)


def _name(stage: Any) -> str:
    """What `dvc repro` calls the stage in the checkout's root; DVC's own name is relative to the working folder."""
    return str(stage.name if stage.path_in_repo == "dvc.yaml" else f"{stage.path_in_repo}:{stage.name}")


def _is_cached(repo: Any, stage: Any, moved: bool) -> bool:
    """Whether DVC would restore the stage rather than run it. Changes `stage` in memory."""
    from dvc.exceptions import DvcException

    try:
        if moved:
            # What dvc.lock says belongs to other inputs; without it DVC looks the present ones up in its run cache.
            stage.save_deps()
            for out in stage.outs:
                out.hash_info = type(out.hash_info)()
        repo.stage_cache.restore(stage, dry=True)
    except (DvcException, OSError):
        return False
    return True


def _reasons(stage: Any, changes: list[Any]) -> Iterable[str]:
    """DVC's account of one stage's changes as short phrases."""
    if not changes:
        return
    if not any(dep.hash_info for dep in stage.deps):
        yield "never run"
        return
    if params := [name for dep in stage.deps for name in _changed_params(dep)]:
        yield f"params changed: {', '.join(params)}"
    if "changed command" in changes:
        yield "command changed"
    parameter_files = {str(dep) for dep in stage.deps if hasattr(dep, "params")}
    deps = {path: what for path, what in _paths(changes, "changed deps").items() if path not in parameter_files}
    outs = _paths(changes, "changed outs")
    missing = ("deleted", "not in cache")
    kinds = {
        "changed": [path for path, what in deps.items() if what not in missing],
        "missing": [path for path, what in deps.items() if what in missing],
        "lost": [path for path, what in outs.items() if what in missing],
        "output altered": [path for path, what in outs.items() if what not in missing],
    }
    yield from (f"{kind}: {', '.join(paths)}" for kind, paths in kinds.items() if paths)
    if "always changed" in changes:
        yield "always runs"


def _paths(changes: list[Any], kind: str) -> dict[str, Any]:
    return {path: what for change in changes if isinstance(change, dict) for path, what in change.get(kind, {}).items()}


def _changed_params(dep: Any) -> list[str]:
    """Dotted names of the parameters whose value differs from the one in `dvc.lock`."""
    if not hasattr(dep, "params"):
        return []
    then, now = dep.hash_info.value or {}, dep.read_params()
    return [name for tracked in dep.params for name in _differences(tracked, then.get(tracked), now.get(tracked))]


def _differences(name: str, then: Any, now: Any) -> list[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*then, *now])
        return [found for key in keys for found in _differences(f"{name}.{key}", then.get(key), now.get(key))]
    return [] if then == now else [name]
