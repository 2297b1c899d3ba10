"""The stages and their edges as DVC reads them from `dvc.yaml`; nothing here repeats the graph."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ChorusError


@dataclass(frozen=True)
class Stage:
    """One stage, the stages it reads from, and what DVC finds changed since it last ran.

    reasons: why DVC would not leave the stage alone, in words; empty where it is clean.
    cached: DVC's run cache holds the result for these very inputs, so that nothing would be computed.
    moved: its inputs or its command changed, so that its result may differ (and not merely be lost).
    """

    name: str
    upstream: tuple[str, ...]
    reasons: tuple[str, ...]
    cached: bool = False
    moved: bool = False


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


def group(stage: str) -> str:
    """Return the name that the instances of a stage share: `train@mlp` belongs to `train`."""
    return stage.split("@", 1)[0]


def family(stage: str) -> str | None:
    """Return the family that a stage works on (`train@mlp`: `mlp`), or `None`."""
    _, at, name = stage.partition("@")
    return name if at else None


def read_graph(root: Path) -> Graph:
    """Ask DVC for the graph of the checkout at `root` and for what has changed in it.

    Raises `ChorusError` where `root` is no git checkout with DVC and a `dvc.yaml`, or where DVC cannot read that.
    """
    for name, remedy in {".git": "git clone", ".dvc": "dvc init", "dvc.yaml": "run in the project's folder"}.items():
        if not (root / name).exists():
            raise ChorusError(f"{root} has no {name}, so it is no checkout of the project ({remedy})")
    import networkx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        # Another dvc may hold the repository's lock for the moment.
        with Repo(str(root), _wait_for_lock=True) as repo:
            status = repo.status()
            # DVC's edges point from a stage to those it depends on.
            graph = repo.index.graph.reverse()
            place = {stage: number for number, stage in enumerate(repo.index.stages)}
            order = networkx.lexicographical_topological_sort(graph, key=place.__getitem__)
            return Graph([_stage(repo, stage, graph, status) for stage in order if stage.cmd])
    except DvcException as error:
        raise ChorusError(f"DVC cannot read the graph of {root}: {error}") from None


def _stage(repo: Any, stage: Any, graph: Any, status: Mapping[str, Any]) -> Stage:
    changes = status.get(stage.addressing, [])
    upstream = tuple(sorted(up.addressing for up in graph.predecessors(stage) if up.cmd))
    moved = any(not isinstance(change, dict) or "changed deps" in change for change in changes)
    reasons = tuple(_reasons(stage, changes))
    return Stage(stage.addressing, upstream, reasons, bool(changes) and _in_run_cache(repo, stage), moved)


def _in_run_cache(repo: Any, stage: Any) -> bool:
    """Whether DVC would restore the stage rather than run it. Changes `stage` in memory."""
    from dvc.exceptions import DvcException

    try:
        stage.save_deps()
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
    params = [name for dep in stage.deps for name in _changed_params(dep)]
    if params:
        yield f"params changed: {', '.join(params)}"
    for change in changes:
        if not isinstance(change, dict):
            yield f"{change}".replace("changed command", "command changed")
    deps = _paths(changes, "changed deps")
    outs = _paths(changes, "changed outs")
    parameter_files = {str(dep) for dep in stage.deps if hasattr(dep, "params")}
    if other := [path for path in deps if path not in parameter_files]:
        yield f"changed: {', '.join(other)}"
    if lost := [path for path, what in outs.items() if what in ("deleted", "not in cache")]:
        yield f"lost: {', '.join(lost)}"
    if altered := [path for path in outs if path not in lost]:
        yield f"output altered: {', '.join(altered)}"


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
