"""Commands run in groups of their own; nothing of a group survives its end."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from flows.stages.process import Overdue, Processes, stopping_on_signals
from tests.stub_checkout import gone

# A leader that waits for its child, as dvc waits for its command, and says where the child is.
LEADER = """\
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
print(child.pid, flush=True)
print("child ended with", child.wait(), flush=True)
sys.exit(7)
"""
POLITE = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
)


def run(processes: Processes, child: str, stop_after: str) -> tuple[int, list[str], float]:
    """Run the leader and stop once a line holding `stop_after` has come; return status, lines and seconds since."""
    lines: list[str] = []
    at = [0.0]

    def on_line(line: str) -> None:
        lines.append(line)
        if stop_after in line and not at[0]:
            at[0] = time.monotonic()
            threading.Timer(0.5, processes.stop).start()

    command = [sys.executable, "-c", LEADER, child]
    status = processes.run(command, Path.cwd(), os.environ, on_line)
    return status, lines, time.monotonic() - at[0]


def test_lines_and_status_of_an_ordinary_command(tmp_path: Path) -> None:
    lines: list[str] = []
    code = "import os, sys; print(os.getcwd()); print(os.environ['X'], file=sys.stderr); print('a\\rb'); sys.exit(3)"
    status = Processes().run([sys.executable, "-c", code], tmp_path, {"X": "é"}, lines.append)
    assert status == 3
    assert sorted(lines) == sorted([str(tmp_path), "é", "a", "b"])


def test_stop_ends_the_child_and_lets_the_leader_notice() -> None:
    status, lines, _ = run(Processes(), POLITE, "")
    assert status == 7
    assert lines[1] == "child ended with 143"
    assert gone(int(lines[0]))


def test_what_ignores_the_request_is_killed_after_the_grace() -> None:
    status, lines, seconds = run(Processes(grace=1), STUBBORN, "deaf")
    assert status == -signal.SIGKILL
    assert 1 < seconds < 40
    assert gone(int(lines[0]))


def test_asking_again_kills_at_once() -> None:
    processes = Processes(grace=60)
    threading.Timer(2.5, processes.stop).start()
    status, _, _ = run(processes, STUBBORN, "deaf")
    assert status == -signal.SIGKILL


@pytest.mark.parametrize(("child", "status"), [(POLITE, "143"), (STUBBORN, "-9")])
def test_what_takes_too_long_is_ended_alone(child: str, status: str) -> None:
    processes = Processes(grace=2)
    lines: list[str] = []
    began = time.monotonic()
    with pytest.raises(Overdue):
        processes.run([sys.executable, "-c", LEADER, child], Path.cwd(), os.environ, lines.append, limit=3)
    assert time.monotonic() - began >= 3
    assert gone(int(lines[0]))
    assert not processes.stopped
    assert (f"child ended with {status}" in lines) == (child == POLITE)  # the other's leader is killed along with it


def test_a_finished_command_leaves_nothing_behind() -> None:
    code = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', sys.argv[1]]).pid)"
    lines: list[str] = []
    status = Processes().run([sys.executable, "-c", code, POLITE], Path.cwd(), os.environ, lines.append)
    assert status == 0
    assert gone(int(lines[0]))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_ask_to_stop_and_are_given_back(number: signal.Signals) -> None:
    processes = Processes()
    original = signal.signal(number, signal.default_int_handler)
    said: list[str] = []
    try:
        with stopping_on_signals(processes, said.append):
            os.kill(os.getpid(), number)
            time.sleep(0.05)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, original)
    assert processes.stopped_by == number
    assert number.name in said[0]


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        processes = Processes()
        with stopping_on_signals(processes, print):
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.05)
        assert not processes.stopped
    finally:
        signal.signal(signal.SIGHUP, before)
