"""The processes of a trial, known by a mark in their environment, whoever their parent is by now."""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

import psutil

MARK = "CHORUS_CHAOS"  # environment: which trial a process belongs to
POLL = 0.02
PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of processes whose own parent dies, as init is, so that none of them is out of sight."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def bury() -> None:
    """Collect children that have ended, among them the adopted ones; as in many containers, nobody does so earlier."""
    for child in psutil.Process().children():
        with suppress(psutil.Error, ChildProcessError):
            if child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)


def alive(trial: str) -> list[psutil.Process]:
    """Return the processes of a trial."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == trial and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def stages(flow: psutil.Process, commands: Mapping[str, str]) -> Iterator[tuple[str, psutil.Process]]:
    """Yield the stages that run below a flow, each with the process of its command; commands: those of all stages."""
    with suppress(psutil.Error):
        for process in flow.children(recursive=True):
            with suppress(psutil.Error):
                words = process.cmdline()[1:]  # a shell that DVC starts has the whole command as one word
                yield from ((stage, process) for stage, command in commands.items() if command.split()[1:] == words)


def above(process: psutil.Process, flow: psutil.Process) -> psutil.Process:
    """Return the child of the flow that a stage's process descends from: the stage's `dvc`."""
    while (parent := process.parent()) is not None and parent.pid != flow.pid:
        process = parent
    return process


def send(process: psutil.Process, number: signal.Signals) -> bool:
    """Send a signal; return whether there still was a process to send it to."""
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


def until(happened: Callable[[], object], seconds: float) -> bool:
    """Wait until something is the case; return whether that was so within `seconds`."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL)
    return True
