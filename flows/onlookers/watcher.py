"""Who looks on while the stages of a run are worked on."""

import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.params.redaction import redact

if TYPE_CHECKING:
    from flows.stages.outcomes import Outcome


class Watcher:
    """Is told when a stage is begun in a slot (again at each attempt), what it says, how it ends, and of the run's end.

    Calls come from several threads, those of one stage in this order from one thread.
    """

    def began(self, stage: str) -> None: ...

    def said(self, stage: str, line: str) -> None: ...

    def ended(self, outcome: "Outcome") -> None: ...

    def finished(self, state: str, message: str) -> None:
        """The run has ended; state: the journal's word for how, message: what went wrong."""


class Watchers(Watcher):
    """Several watchers as one. One that raises is dropped, and that is said: no stage fails because of an onlooker."""

    def __init__(self, *watchers: Watcher) -> None:
        self._watchers = list(watchers)
        self._lock = threading.Lock()

    def began(self, stage: str) -> None:
        self._tell(lambda watcher: watcher.began(stage))

    def said(self, stage: str, line: str) -> None:
        self._tell(lambda watcher: watcher.said(stage, line))

    def ended(self, outcome: "Outcome") -> None:
        self._tell(lambda watcher: watcher.ended(outcome))

    def finished(self, state: str, message: str) -> None:
        self._tell(lambda watcher: watcher.finished(state, message))

    def _tell(self, what: Callable[[Watcher], None]) -> None:
        for watcher in tuple(self._watchers):
            try:
                what(watcher)
            except Exception as error:
                with self._lock:
                    if watcher in self._watchers:
                        self._watchers.remove(watcher)
                        name = type(watcher).__name__
                        print(redact(f"chorus: {name} watches no longer: {error!r}"), file=sys.stderr, flush=True)
