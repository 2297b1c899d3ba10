"""A service that is told to stop lets its runs end first."""

import signal
import subprocess
import sys
from pathlib import Path

from tests.stub_checkout import gone

# Stands where Prefect's runner does: it has a run, a process of the engine's name, and waits.
SERVICE = """\
import signal, subprocess, sys, time
from flows.service.serving import _Leaving
leaving = _Leaving(print, float(sys.argv[1]))
signal.signal(signal.SIGTERM, leaving.on_signal)
run = subprocess.Popen([sys.executable, "-c", sys.argv[2], "prefect.engine"])
print(run.pid, flush=True)
while True:
    time.sleep(0.1)
    run.poll()
"""
POLITE = """\
import signal, sys, time
def end(*_):
    time.sleep(1)
    print("the run has closed its books", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("running", flush=True)
time.sleep(60)
"""
DEAF = 'import signal, time; signal.signal(15, signal.SIG_IGN); print("running", flush=True); time.sleep(60)'


def told_to_stop(grace: float, run: str) -> tuple[int, int, str]:
    """Return the service's status, its run's process id, and what both said after the signal."""
    command = [sys.executable, "-c", SERVICE, str(grace), run]
    service = subprocess.Popen(command, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, text=True)
    assert service.stdout is not None
    first, second = service.stdout.readline(), service.stdout.readline()
    pid = int(next(line for line in (first, second) if line.strip().isdigit()))
    service.send_signal(signal.SIGTERM)
    status = service.wait(60)
    if grace < 5:
        subprocess.run(["kill", "-KILL", str(pid)], check=True)
    return status, pid, service.stdout.read()


def test_a_run_closes_its_books_before_the_service_leaves() -> None:
    status, run, said = told_to_stop(30, POLITE)
    assert status == 0
    assert "the run has closed its books" in said
    assert gone(run)


def test_a_run_that_does_not_end_holds_nothing_up() -> None:
    status, run, _ = told_to_stop(1, DEAF)
    assert status == 0
    assert gone(run)
