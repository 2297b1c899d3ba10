"""A command that is followed line by line, and what its lines and its status say of the stage."""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from flows.stages.attempts import stage_status, what_can_pass
from flows.stages.outcomes import CLEAN, FAILED, HELD, RAN, RESTORED, STOPPED, VERIFY, Outcome, broken
from flows.stages.process import Overdue, Processes, kill_group, started
from pipeline.exits import BAD_INPUT, NO_ROOM
from pipeline.params.redaction import redact
from pipeline.tracking import PIPELINE_RUN

# How DVC says which of the three it did.
SIGNS = {
    "Running stage '": RAN,
    "is cached - skipping run": RESTORED,
    "Pulling data for stage": RESTORED,
    "didn't change, skipping": CLEAN,
}
# Advice to people who type dvc's commands; in a flow's log it only hides the stage's own lines.
ADVICE = (
    "To track the changes with git",
    "\tgit add",
    "To enable auto staging",
    "\tdvc config core.autostage",
    "Use `dvc push`",
    "Updating lock file",
    "Generating lock file",
)
CHECK = (sys.executable, "-m", "pipeline", "verify")
OVERDUE = 124  # as coreutils' `timeout` has it
KEPT = 12  # last lines of a failed stage that are shown again at the end


def stage_environment(threads: int, pipeline_run: str | None = None) -> dict[str, str]:
    """Return the environment that stage processes get: this `python`, their threads, their MLflow parent."""
    here = Path(sys.executable).parent
    count = str(threads)
    environment = {
        **os.environ,
        "PATH": f"{here}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
    }
    return environment | ({PIPELINE_RUN: pipeline_run} if pipeline_run else {})


def verify(processes: Processes, root: Path, environment: Mapping[str, str], log: Callable[[str], None]) -> Outcome:
    """Check that the registry holds the chosen model; the command registers it again where it was lost."""
    return _checked(processes, lambda on_line: processes.run(CHECK, root, environment, on_line), log)


@contextmanager
def on_cue(root: Path, environment: Mapping[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """Start a check of the registry that imports what it needs, which takes seconds, and then waits for
    `verify_on_cue`; where that does not come, it ends with the context, having looked at nothing.
    """
    with started([*CHECK, "--on-cue"], root, environment, stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                kill_group(process.pid)


def verify_on_cue(processes: Processes, waiting: "subprocess.Popen[str]", log: Callable[[str], None]) -> Outcome:
    """Let a check that `on_cue` started begin, and return what came of it."""

    def run(on_line: Callable[[str], None]) -> int:
        assert waiting.stdin is not None
        with suppress(BrokenPipeError), waiting.stdin as cue:  # one that has ended already says why
            cue.write("\n")
        return processes.follow(waiting, on_line)

    return _checked(processes, run, log)


def _checked(processes: Processes, run: Callable[[Callable[[str], None]], int], log: Callable[[str], None]) -> Outcome:
    outcome = follow(processes, VERIFY, run, log)
    return replace(outcome, what=HELD) if outcome.what == RAN else outcome


def follow(
    processes: Processes, name: str, run: Callable[[Callable[[str], None]], int], log: Callable[[str], None]
) -> Outcome:
    """Run a command, pass on what it says, and tell from that what happened.

    run: called with what is to be called with each line; returns the command's status, or raises `Overdue`.
    """
    what = RAN
    said: deque[str] = deque(maxlen=200)

    def on_line(line: str) -> None:
        nonlocal what
        if not line or line.startswith(ADVICE):
            return
        line = redact(line)
        what = next((happened for sign, happened in SIGNS.items() if sign in line), what)
        said.append(line)
        log(line)

    began = time.monotonic()
    try:
        status = run(on_line)
    except Overdue as error:
        return Outcome(name, FAILED, time.monotonic() - began, str(error), status=OVERDUE)
    except Exception as error:  # the command did not even start, or not to its end
        return broken(name, error, time.monotonic() - began)
    seconds = time.monotonic() - began
    if status == 0:
        return Outcome(name, what, seconds)
    if processes.stopped:
        return Outcome(name, STOPPED, seconds)
    lines = list(said)
    return Outcome(
        name,
        FAILED,
        seconds,
        failure_message(status, lines),
        passing=what_can_pass(status, lines),
        status=stage_status(lines) or 0,
    )


def failure_message(status: int, lines: Sequence[str]) -> str:
    """Return what to show of a failed command: the one message of bad input or of a full disk, else its last lines.

    status: the command's own; `dvc` has another one and tells its command's at the end of a line.
    """
    if not lines:
        return f"ended with status {status} and said nothing"
    start = next((place for place, line in enumerate(lines) if line.startswith("chorus: ")), None)
    said = next((known for known in (BAD_INPUT, NO_ROOM) if lines[-1].endswith(f"exited with {known}")), status)
    if start is not None and said in (BAD_INPUT, NO_ROOM):
        return "\n".join(line for line in lines[start:] if not line.startswith("ERROR: failed to reproduce"))
    return "\n".join(lines[-KEPT:])
