"""One flow at a time in a checkout: two would wait for each other's files in the middle of their work."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import ChorusError


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Hold the checkout while the context lasts; raises `ChorusError` naming the process that already does."""
    path = root / ".chorus" / "flow.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise ChorusError(f"a flow already runs in {root} (process {holder}); wait for it or end it") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        # The lock goes with the file, also when this process is killed.
        yield
