"""Commands of DVC, which find this environment's `python`."""

import subprocess
import sys
from pathlib import Path

from flows.stages.execution import stage_environment
from flows.stages.process import captured
from pipeline.errors import ChorusError, PassingError

PULLING = 6 * 3600.0  # seconds that a pull may take; what has come stays, so the next one goes on from there


def dvc(root: Path, *arguments: str, limit: float | None = None) -> str:
    """Return the output of a DVC command; raises `ChorusError` with DVC's own words where it fails.

    limit: seconds, after which it is ended and `PassingError` is raised.
    """
    command = [sys.executable, "-m", "dvc", *arguments]
    try:
        done = captured(command, root, stage_environment(1), limit)
    except subprocess.TimeoutExpired as error:
        what = f"dvc {arguments[0]} in {root} did not end within {error.timeout / 60:g} minutes"
        raise PassingError(f"{what}: try it in a terminal, and start again when the remote answers") from None
    if done.returncode:
        raise ChorusError(f"dvc {arguments[0]}: {done.stderr.strip()}")
    return done.stdout
