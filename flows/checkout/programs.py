"""Commands of git and of DVC: what they print, or their own words on what is wrong."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from flows.stages.command import stage_environment
from flows.stages.process import captured
from pipeline.errors import ChorusError, PassingError

FETCHING = 3600.0  # seconds that `git fetch` may take; a run that waits holds the clone
PULLING = 6 * 3600.0  # seconds that `dvc pull` may take; what has come stays, so the next one goes on from there


def git(root: Path, *arguments: str, limit: float | None = None) -> str:
    """Return the output of a git command; raises `ChorusError` where it fails.

    It cannot ask for a password: at night nobody would answer. limit: seconds, after which it is ended and
    `PassingError` is raised.
    """
    return _output("git", ["git", *arguments], root, {**os.environ, "GIT_TERMINAL_PROMPT": "0"}, limit)


def dvc(root: Path, *arguments: str, limit: float | None = None) -> str:
    """Return the output of a DVC command, which finds this environment's `python`; raises as `git` does."""
    return _output("dvc", [sys.executable, "-m", "dvc", *arguments], root, stage_environment(1), limit)


def _output(
    program: str, command: Sequence[str], root: Path, environment: Mapping[str, str], limit: float | None
) -> str:
    what = f"{program} {command[command.index(program) + 1]}"
    try:
        done = captured(command, root, environment, limit)
    except subprocess.TimeoutExpired as error:
        late = f"{what} in {root} did not end within {error.timeout / 60:g} minutes"
        raise PassingError(f"{late}: try it in a terminal, and start again when the other side answers") from None
    if done.returncode:
        raise ChorusError(f"{what}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
