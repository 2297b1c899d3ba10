"""Progress of long work over many images."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def with_progress(items: Iterable[Item], what: str, total: int | None = None, every: float = 5.0) -> Iterator[Item]:
    """Yield `items`; print a line with their number and rate every so many seconds, so nothing for short work."""
    start = shown = time.monotonic()
    for count, item in enumerate(items):
        now = time.monotonic()
        if now - shown >= every:
            shown = now
            of = "" if total is None else f" of {total:,}"
            print(f"{what}: {count:,}{of} images, {count / (now - start):,.0f} a second", flush=True)
        yield item
