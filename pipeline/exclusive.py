"""Locks whose holder is named: one process at a time works on a thing of a checkout."""

import fcntl
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Literal

import psutil

from pipeline.errors import ChorusError

Busy = Literal["wait", "refuse"]
FOLDER = ".chorus"  # in the checkout; undeclared, ignored by git and DVC
TICK = 0.2  # seconds between two looks at a lock that is held
CLOCK_SECONDS = 5.0  # how far a process's start may seem to move


class BusyError(ChorusError):
    """Another process holds what is wanted; the message names it."""


@contextmanager
def alone(
    path: Path,
    what: str,
    busy: Busy,
    say: Callable[[str], None],
    given_up: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Hold the lock file at `path` while the context lasts.

    what: the thing, as messages name it.
    busy: whether to wait until another process has left it, or to raise `BusyError` at once.
    given_up: asked while waiting; where it says so, `BusyError` is raised too.

    The lock belongs to the open file: it goes with the process, however that ends, so that none is ever left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        _take(file, what, busy, say, given_up)
        file.truncate(0)
        json.dump(_myself(), file)
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def held_by(path: Path) -> str | None:
    """Say which process of this machine seems to hold a lock file, without taking it; None where none does."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        since = datetime.fromisoformat(held["since"]).timestamp()
        # One that was killed left its record, and a later process may have the same id.
        later = psutil.Process(int(held["pid"])).create_time() > since + CLOCK_SECONDS
        return None if later else str(held["command"])
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None


def stage_alone(root: Path, stage: str, busy: Busy) -> AbstractContextManager[None]:
    """Hold a stage of the checkout at `root`, by the name that `dvc.yaml` gives it, while its command runs.

    The command itself takes it, so that it holds whoever has started that: a flow, `dvc repro`, or a person.
    """
    return alone(stage_lock(root, stage), stage, busy, partial(print, flush=True))


def stage_lock(root: Path, stage: str) -> Path:
    """Return the lock file of a stage."""
    return root / FOLDER / "stages" / f"{stage}.lock"


def _take(file: IO[str], what: str, busy: Busy, say: Callable[[str], None], given_up: Callable[[], bool]) -> None:
    told = ""
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(file)
        else:
            return
        if busy == "refuse" or given_up():
            raise BusyError(f"{what} is taken by {holder}; wait for it, end it, or set flow.busy to wait")
        if holder != told:
            say(f"{what} is taken by {holder}: waiting for it")
            told = holder
        time.sleep(TICK)


def _myself() -> dict[str, object]:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return {"pid": os.getpid(), "host": platform.node(), "since": now, "command": command}


def _holder(file: IO[str]) -> str:
    """Say who holds the lock; between taking it and writing that down there is a moment."""
    file.seek(0)
    try:
        held = json.loads(file.read())
        return f"process {held['pid']} on {held['host']} since {held['since']} ({held['command']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
