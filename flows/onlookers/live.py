"""One table in the terminal that follows a run: what is worked on, how far it is, what has ended."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flows.onlookers.watcher import Watcher
from flows.stages.outcomes import FAILED, Outcome
from pipeline.progress import Progress

PER_SECOND = 2


class Board(Watcher):
    """What is known of a run at the moment; rich renders it anew each time it is asked.

    count: the stages of the run. expected: seconds that stages took when they last ran. clock: seconds, monotonic.
    """

    def __init__(self, count: int, expected: Mapping[str, float], clock: Callable[[], float] = time.monotonic) -> None:
        self._count, self._expected, self._clock = count, expected, clock
        self._began = clock()
        self._working: dict[str, tuple[float, dict[str, Progress]]] = {}
        self._ended: Counter[str] = Counter()
        self._lock = threading.Lock()

    def began(self, stage: str) -> None:
        with self._lock:
            self._working[stage] = (self._clock(), {})

    def said(self, stage: str, line: str) -> None:
        progress = Progress.parse(line)
        with self._lock:
            if progress is not None and stage in self._working:
                self._working[stage][1][progress.what] = progress

    def ended(self, outcome: Outcome) -> None:
        with self._lock:
            self._working.pop(outcome.stage, None)
            self._ended[outcome.what] += 1

    def __rich__(self) -> Group:
        with self._lock:
            now = self._clock()
            table = Table(box=None, show_header=False, pad_edge=False)
            for stage, (began, parts) in self._working.items():
                last = list(parts.values())[-1:]
                bar = ProgressBar(total=100, completed=last[0].percent, width=20) if last else Text()
                says = f"{last[0].what}: {last[0].summary}" if last else self._expectation(stage, now - began)
                table.add_row(stage, _clock(now - began), bar, says)
            ended = ", ".join(f"{number} {what}" for what, number in self._ended.items())
            head = f"{self._ended.total()} of {self._count} stages, {_clock(now - self._began)}"
            style = "bold red" if self._ended[FAILED] else "bold"
            return Group(Text(f"{head}: {ended}" if ended else head, style=style), table)

    def _expectation(self, stage: str, passed: float) -> str:
        took = self._expected.get(stage)
        return "" if took is None else f"took {_clock(took)} the last time" + ("" if passed < 2 * took else "!")


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))


@contextmanager
def shown(board: Board, console: Console | None = None) -> Iterator[None]:
    """Show the board below whatever is logged and printed while the context lasts; only a terminal gets it.

    Lines of progress are left out of the terminal then, for the board has them.
    """
    console = console or Console(stderr=True, markup=False, highlight=False)  # lines of stages are no markup
    if not console.is_terminal or console.is_dumb_terminal:
        yield
        return
    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, PrefectConsoleHandler)]
    before = [handler.console for handler in handlers]
    hide = _NoProgress()
    with Live(board, console=console, refresh_per_second=PER_SECOND, transient=True):
        try:
            for handler in handlers:
                handler.console = console
                handler.addFilter(hide)
            yield
        finally:
            for handler, own in zip(handlers, before, strict=True):
                handler.console = own
                handler.removeFilter(hide)


class _NoProgress(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return Progress.parse(record.getMessage()) is None
