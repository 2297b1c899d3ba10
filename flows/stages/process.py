"""Commands in process groups of their own, which can be ended whole and leave nothing running."""

import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import psutil

GRACE = 20.0  # seconds that a training gets for its checkpoint
TICK = 0.1
STOPPING = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP"))


class Overdue(Exception):
    """A command took longer than the `limit` seconds that it was given, and has been ended; the message says so."""

    def __init__(self, limit: float) -> None:
        super().__init__(f"it took longer than {limit / 60:g} minutes (flow.timeout, flow.timeouts) and was ended")


class Processes:
    """Runs commands and ends all of them together.

    To stop, every process of a group but its leader gets SIGTERM once: the leader is `dvc`, which notices that its
    command failed and ends by itself, and so never leaves half a `dvc.lock`. What is left after `grace` seconds, or
    when asked a second time, is killed.
    """

    def __init__(self, grace: float = GRACE) -> None:
        self.grace = grace
        self.stopped_by: int | None = None
        self._asked_at = 0.0
        self._kill = False

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """Ask all commands to end. Only sets attributes, so that a signal handler may call it."""
        now = time.monotonic()
        if self.stopped_by is None:
            self.stopped_by, self._asked_at = signum, now
        elif now - self._asked_at > 1:  # the same key press can arrive twice, through make for instance
            self._kill = True

    @property
    def stopped(self) -> bool:
        return self.stopped_by is not None

    def stopped_within(self, seconds: float) -> bool:
        """Wait, and return whether the commands were asked to end meanwhile; then at once."""
        deadline = time.monotonic() + seconds
        while not self.stopped and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(TICK, left))
        return self.stopped

    @property
    def killing(self) -> bool:
        """Whether they were asked a second time, and are ended at once."""
        return self._kill

    def run(
        self,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        on_line: Callable[[str], None],
        limit: float | None = None,
    ) -> int:
        """Run a command to its end; see `follow`."""
        return self.follow(started(command, folder, environment), on_line, limit)

    def follow(
        self, process: "subprocess.Popen[str]", on_line: Callable[[str], None], limit: float | None = None
    ) -> int:
        """Stay with a command to its end and return its exit status (negative: the signal that ended it).

        process: `started`. on_line: called with each line of its output and errors as it comes, without the line's end.
        limit: seconds after which the group is ended as when all are stopped; then `Overdue` is raised.
        """
        ended, overdue = threading.Event(), threading.Event()
        deadline = math.inf if limit is None else time.monotonic() + limit
        watcher = threading.Thread(target=self._watch, args=(process, ended, deadline, overdue), daemon=True)
        watcher.start()
        try:
            assert process.stdout is not None
            with process.stdout as output:
                # The end of the output comes when the whole group is gone, for each process in it holds the pipe.
                for line in output:
                    on_line(line.rstrip())
            status = process.wait()
        finally:
            ended.set()
            watcher.join()
        if limit is not None and status != 0 and overdue.is_set():
            raise Overdue(limit)
        return status

    def _watch(
        self, process: "subprocess.Popen[str]", ended: threading.Event, deadline: float, overdue: threading.Event
    ) -> None:
        asked: set[int] = set()
        left_since: float | None = None
        while not ended.wait(TICK):
            now = time.monotonic()
            if now > deadline and not self.stopped:
                overdue.set()
            if self.stopped or overdue.is_set():
                since = self._asked_at if self.stopped else deadline
                for pid in set(_followers(process.pid)) - asked:
                    asked.add(pid)
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGTERM)
                if self._kill or now - since > self.grace:
                    kill_group(process.pid)
            elif process.poll() is not None:
                # The command has ended and something it started has not: a finished stage leaves nothing behind.
                left_since = left_since or now
                if now - left_since > 2:
                    kill_group(process.pid)


def started(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    stdin: int = subprocess.DEVNULL,
    stderr: int = subprocess.STDOUT,
) -> "subprocess.Popen[str]":
    """Start a command in a process group of its own; it has nobody to ask, unless `stdin` is a pipe."""
    return subprocess.Popen(
        command,
        cwd=folder,
        env=dict(environment),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )


def _followers(group: int) -> Iterator[int]:
    """Ids of a group's processes without its leader."""
    for pid in psutil.pids():
        with suppress(ProcessLookupError, PermissionError):
            if pid != group and os.getpgid(pid) == group:
                yield pid


def kill_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def captured(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], limit: float | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a command that has nobody to ask to its end and return it with its output.

    It is no part of the terminal's group, so that Ctrl-C there does not cut it in the middle of a write. Where this
    function is left early, the command's whole group is told to end, by which git removes its lock files.

    limit: seconds; raises `subprocess.TimeoutExpired` after them.
    """
    process = started(command, folder, environment, stderr=subprocess.PIPE)
    try:
        output, errors = process.communicate(timeout=limit)
    except BaseException:
        _end_group(process)
        raise
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _end_group(process: "subprocess.Popen[str]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=GRACE)
    kill_group(process.pid)
    process.wait()


@contextmanager
def stopping_on_signals(processes: Processes, say: Callable[[str], None]) -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and a closed terminal end all commands in good order while the context lasts.

    Nothing is raised: the flow goes on, finds its stages stopped and closes its books. Only the main thread can do
    this; in others the context does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(signum: int, _frame: FrameType | None) -> None:
        if not processes.stopped:
            say(f"{signal.Signals(signum).name}: ending the stages; they get {processes.grace:g} s (again: at once)")
        processes.stop(signum)

    # A signal that is ignored, as nohup does with SIGHUP, stays so.
    before = {number: signal.getsignal(number) for number in STOPPING}
    for number, old in before.items():
        if old is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
