"""SIGTERM and Ctrl-C as something to ask for between two steps, instead of an exception in the middle of one."""

import signal
import sys
from types import FrameType, TracebackType
from typing import Any


class Interruption:
    """While this context is open the first SIGTERM or SIGINT is only noted; a second one acts at once."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()

    def end(self) -> None:
        """Leave the process as the noted signal asks: KeyboardInterrupt, or SystemExit 143 after SIGTERM."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(143)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
