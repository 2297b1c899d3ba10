"""One flow at a time in a checkout: two would wait for each other's files in the middle of their work."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipeline import exclusive
from pipeline.exclusive import FOLDER, Busy

FLOW = Path(FOLDER) / "flow.lock"


@contextmanager
def alone(root: Path, busy: Busy, say: Callable[[str], None], errand: str | None = None) -> Iterator[None]:
    """Hold the checkout while the context lasts.

    busy: whether to wait for a flow that already does, or to raise `BusyError`, which names its process.
    errand: of runs on the same errand only one waits and others are refused, for it will do what they came for. Those
    without one all wait.
    """
    with ExitStack() as held:
        with ExitStack() as place:
            if errand:
                lock = root / FOLDER / f"next-{errand}.lock"
                place.enter_context(exclusive.alone(lock, f"the place of the next run ({errand})", "refuse", say))
            held.enter_context(exclusive.alone(root / FLOW, f"the flow of {root}", busy, say))
        yield
