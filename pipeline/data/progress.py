"""Progress of long work over many images."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from pipeline.progress import Progress

Item = TypeVar("Item")


def with_progress(items: Iterable[Item], what: str, total: int, every: float = 5.0) -> Iterator[Item]:
    """Yield `items`; print a line with their number and rate every so many seconds, so nothing for short work."""
    start = shown = time.monotonic()
    for count, item in enumerate(items):
        now = time.monotonic()
        if now - shown >= every and count:
            shown, rate = now, count / (now - start)
            print(Progress(what, count, total, "images", rate, "images", int((total - count) / rate)), flush=True)
        yield item
