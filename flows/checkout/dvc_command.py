"""Commands of DVC, which find this environment's `python`."""

import subprocess
import sys
from pathlib import Path

from flows.stages.execution import stage_environment
from pipeline.errors import ChorusError


def dvc(root: Path, *arguments: str) -> str:
    """Return the output of a DVC command; raises `ChorusError` with DVC's own words where it fails."""
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=root, env=stage_environment(1), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChorusError(f"dvc {arguments[0]}: {done.stderr.strip()}")
    return done.stdout
