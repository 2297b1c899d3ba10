"""Check what DVC cannot see: that the registry holds what was registered, and which version is the champion now.

No stage: the command that ends every flow.
"""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from pipeline import registry
from pipeline.errors import ChorusError
from pipeline.exclusive import stage_alone
from pipeline.files import read_json
from pipeline.lineage import LOCK
from pipeline.project import Project
from pipeline.stages._verdict import outdated
from pipeline.tracking import PIPELINE_RUN, Tracker, import_store

STAGES = ("gate", "register")


def cued(root: Path) -> bool:
    """Import what a check needs, then wait for a line on standard input; return whether one came before its end."""
    import_store(root)
    return bool(sys.stdin.readline())


def run(project: Project) -> None:
    """Check that the registry holds what registration.json says, and that its champion is the one that was compared
    with; register again if the version was lost, gate again if the champion has moved.

    A registration of another model than `models/chosen` is left alone: the stage has to run first.
    """
    if not project.registration.exists() or not (project.chosen / "recipe.json").exists():
        print("verify  nothing is registered yet: `dvc repro` does it", flush=True)
        return
    said = read_json(project.registration)
    model = project.params.register_.model
    with registry.packed(project.chosen) as (_, identity):
        pass
    if (said["model"], said["content"]) != (model, identity):
        print("verify  models/chosen has changed since it was registered: `dvc repro` registers it", flush=True)
        return
    tracker = Tracker(project.root)
    version = registry.find_version(tracker, model, identity)
    lost = version is None or (version.number, version.run_id) != (said["version"], said["run_id"])
    if lost:
        print(f"verify  the registry has lost {model} version {said['version']}: registering it again", flush=True)
    if why := outdated(project, tracker):
        from pipeline.stages import gate  # it imports torch, which takes longer than all of this check

        print(f"verify  {why}: it compares again", flush=True)
        with stage_alone(project.root, "gate", project.params.flow.busy):
            gate.run(project)
    if lost or why:
        from pipeline.stages import register

        with stage_alone(project.root, "register", project.params.flow.busy):
            register.run(project)
        record(project.root)
        return
    assert version is not None
    # Where it points elsewhere, another clone of the same registry has registered something since.
    if registry.alias_number(tracker, model) is None:
        registry.set_candidate(tracker, version)
    if PIPELINE_RUN in os.environ:
        from pipeline.stages import register

        register.mark_reused(project, tracker, tracker.pipeline())
    print(f"verify  the registry holds {model} version {version.number}", flush=True)


def record(root: Path) -> None:
    """Tell DVC that these stages have run, as they did outside of it: their outputs are others than in `dvc.lock`."""
    lock = root / LOCK
    recorded = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"] if lock.exists() else {}
    stages = [stage for stage in STAGES if stage in recorded]
    if not stages:
        return
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "commit", "--force", "--quiet", *stages]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChorusError(f"registered, but `dvc commit -f {' '.join(stages)}` failed: {done.stderr.strip()}")
