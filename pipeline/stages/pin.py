"""Settle which weights the families' warm starts are: no stage of the graph, but what writes one of its inputs."""

import shutil
from dataclasses import replace

from pipeline.files import write_text
from pipeline.params import WarmStart, parse_params
from pipeline.pinning.file import write_pins
from pipeline.pinning.weights import find
from pipeline.project import Project


def run(project: Project, refresh: bool = False) -> None:
    """Pin each warm start in `params.yaml` and print what it is; unchanged ones leave the file as it is.

    Aliases of the registered model are followed to where they point now; sources of other kinds stay what they were
    pinned to, unless `refresh`. Weights that nothing is pinned to any more are removed from `Project.warm`.
    """
    path = project.root / "params.yaml"
    before = {name: family.warm_start for name, family in project.params.families.items() if family.warm_start}
    after = {name: _pin(project, name, wanted, refresh) for name, wanted in before.items()}
    moved = {name: pin for name, pin in after.items() if pin != before[name]}
    if moved:
        text = write_pins(path.read_bytes().decode(), moved)
        write_text(path, text)
        project = replace(project, params=parse_params(text))
    for name, pin in after.items():
        print(f"pin  {name}: {_said(before[name], pin)}", flush=True)
    if not before:
        print("pin  no family has a warm_start", flush=True)
    _prune(project)


def _pin(project: Project, family: str, wanted: WarmStart, refresh: bool) -> WarmStart:
    """Return what a warm start is now; as it was where the weights are, in whichever version they were found."""
    if wanted.pinned and wanted.kind != "alias" and not refresh:
        return wanted
    now = find(project, family, wanted.model_copy(update={"version": None}))
    # The same weights in a newer version are no reason to train again.
    return wanted if wanted.pinned and now.content == wanted.content else now


def _said(before: WarmStart, pin: WarmStart) -> str:
    if pin.content is None:
        return f"{pin.source} leads to no weights of its architecture yet; it starts without"
    known = f"{pin}, weights {pin.content[:12]}"
    if pin == before:
        return f"{known}, as before"
    return known + (f"; before {before}, weights {before.content[:12]}" if before.content else "")


def _prune(project: Project) -> None:
    """Remove weights that no family starts from."""
    wanted = {family.warm_start.content for family in project.params.families.values() if family.warm_start}
    for folder in project.warm.glob("[0-9a-f]*"):
        if folder.name not in wanted:
            shutil.rmtree(folder)
