"""Warm starts before a run: where an alias points now is settled in `params.yaml`, which the stages depend on."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from flows.checkout.git import PARAMS
from flows.checkout.programs import git
from flows.stages.command import stage_environment
from pipeline.errors import ChorusError
from pipeline.params import parse_params
from pipeline.pinning.file import write_pins
from pipeline.project import Project


def settle_warm_starts(project: Project, say: Callable[[str], None]) -> Project:
    """Pin the families' warm starts and return the project as it is then; one without any is left alone.

    Raises `ChorusError` with the command's own message where a source holds no weights.
    """
    if not any(family.warm_start for family in project.params.families.values()):
        return project
    command = [sys.executable, "-m", "pipeline", "pin"]
    environment = stage_environment(project.params.compute.threads)
    done = subprocess.run(command, cwd=project.root, env=environment, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        say(line)
    if done.returncode:
        raise ChorusError(done.stderr.strip().removeprefix("chorus: ") or "python -m pipeline pin failed")
    return Project.load(project.root)


def commit_pins(root: Path) -> str | None:
    """Commit `params.yaml` where nothing but pins differs from the last commit; return a line about it, if so.

    Then what the run makes comes from a commit and not from a changed file.
    """
    path = root / PARAMS
    if not git(root, "status", "--porcelain", "--", PARAMS).strip():
        return None
    text = path.read_bytes().decode()
    families = parse_params(text).families
    pins = {name: family.warm_start for name, family in families.items() if family.warm_start}
    try:
        if write_pins(git(root, "show", f"HEAD:./{PARAMS}"), pins) != text:
            return None
    except (ChorusError, KeyError):  # no such file or family in the last commit
        return None
    git(root, "commit", "--quiet", "--message", f"Pin {', '.join(pins)}", "--only", "--", PARAMS)
    return f"committed {PARAMS}: {git(root, 'log', '-1', '--format=%h %s').strip()}"
