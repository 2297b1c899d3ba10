"""Which failures of a stage can pass, how long to wait before another attempt, and how long one may take."""

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flows.planning.graph import Graph, group
from pipeline.exits import CAN_PASS, TAKEN_AWAY

# How DVC ends when a stage's command failed. A status below 0 is a signal's; shells say 128 + the signal instead.
EXITED = re.compile(r"exited with (-?\d+)$")
BUSY = "is busy, it is being blocked by"
LONGEST = 600.0  # seconds between two attempts
OTHERS = "another process works on the same files"
OTHERS_SECONDS = 10.0  # between two looks whether it still does


@dataclass(frozen=True)
class Patience:
    """How often a stage that failed is tried again, and the seconds before the first time; each wait is twice as long.

    Raises nothing and reads no clock: who attempts a stage waits by itself.
    """

    retries: int = 0
    first: float = 0.0

    def wait(self, attempt: int) -> float | None:
        """Return the seconds between attempt number `attempt` (from 1) and the next; None where it was the last."""
        return min(self.first * 2 ** (attempt - 1), LONGEST) if attempt <= self.retries else None


def limits_of(graph: Graph, timeout: float | None, timeouts: Mapping[str, float]) -> dict[str, float]:
    """Return the seconds that each stage may take, for those that have a limit; a stage's own name beats its group's.

    timeout, timeouts: minutes of all stages, and of single ones by name.

    Raises `ChorusError` listing the known names for one that is no stage's.
    """
    for name in timeouts:
        graph.select([name])
    found = {stage: timeouts.get(stage, timeouts.get(group(stage), timeout)) for stage in graph.stages}
    return {stage: minutes * 60 for stage, minutes in found.items() if minutes is not None}


def stage_status(lines: Sequence[str]) -> int | None:
    """Return what a stage's own command ended with, of the last lines that DVC said; None where it was not that."""
    return next((int(match[1]) for line in reversed(lines) if (match := EXITED.search(line))), None)


def what_can_pass(status: int, lines: Sequence[str]) -> str:
    """Return why a command that failed, without having been asked to end, may succeed next time; empty if it will not.

    status: of the command itself, DVC's or the stage's; negative for a signal. lines: the last ones it said.
    """
    own = stage_status(lines)
    told = status if own is None else own
    if told == CAN_PASS:
        return "its cause can pass"
    for number in (told, status):
        ended_by = -number if number < 0 else number - 128
        if ended_by in TAKEN_AWAY:
            return f"it was ended by {signal.Signals(ended_by).name}, which this flow did not send"
    return OTHERS if any(BUSY in line for line in lines) else ""
