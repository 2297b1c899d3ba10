"""Serving deployments until a signal says to stop, and then ending what runs in good order.

Prefect's own runner leaves at once and kills the processes of its runs, whose stages would stay behind without a
checkpoint.
"""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

import psutil

from flows.stages.process import GRACE

ENGINE = "prefect.engine"  # the module that a run's process is started with


def serve(deployments: Sequence[Any], say: Callable[[str], None], grace: float = 3 * GRACE) -> None:
    """Start runs of Prefect's deployments as they come due; return after SIGTERM or Ctrl-C.

    grace: seconds that runs get to end their stages and close their books; a second signal does not wait for that.
    """
    from prefect.runner import Runner

    runner = Runner()
    for deployment in deployments:
        runner.add_deployment(deployment)
    leaving = _Leaving(say, grace)
    # The runner installs this for SIGTERM when it starts, and asyncio leaves a handler of Ctrl-C as it is.
    runner.handle_sigterm = leaving.on_signal
    before = signal.signal(signal.SIGINT, leaving.on_signal)
    try:
        asyncio.run(runner.start())
    except SystemExit:
        if not leaving.asked:
            raise
    finally:
        signal.signal(signal.SIGINT, before)


class _Leaving:
    """Ends the runs when the first signal comes, while the runner goes on and takes note of their ends; then leaves."""

    def __init__(self, say: Callable[[str], None], grace: float) -> None:
        self.say, self.grace, self.asked = say, grace, False

    def on_signal(self, signum: int, _frame: FrameType | None) -> None:
        if self.asked:  # a second time, or by ourselves once the runs have ended
            sys.exit(0)
        self.asked = True
        self.say(f"{signal.Signals(signum).name}: ending what runs; it gets {self.grace:g} s (again: at once)")
        threading.Thread(target=self._end_runs, daemon=True).start()

    def _end_runs(self) -> None:
        deadline, told = time.monotonic() + self.grace, set[int]()
        # Until the runner has left it may start another run.
        while (running := _runs()) and time.monotonic() < deadline:
            for process in running:
                if process.pid not in told:
                    told.add(process.pid)
                    with suppress(psutil.Error):
                        process.terminate()
            psutil.wait_procs(running, timeout=0.5)
        os.kill(os.getpid(), signal.SIGTERM)


def _runs() -> list[psutil.Process]:
    """Return the processes of the flow runs that this one has started."""
    found = []
    for process in psutil.Process().children():
        with suppress(psutil.Error):
            if ENGINE in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
