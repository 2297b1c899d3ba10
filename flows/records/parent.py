"""The MLflow run that stands for one run of the flow; the stages' own runs are its children."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.exits import CAN_PASS, status_of
from pipeline.params.redaction import redact
from pipeline.tracking import Run, Tracker


class Parent:
    """An open parent run; `status` is what it ends with."""

    def __init__(self, run: Run) -> None:
        self.id, self.status = run.id, "FAILED"


@contextmanager
def pipeline_run(root: Path, name: str, flow_run: str, url: str | None, say: Callable[[str], None]) -> Iterator[Parent]:
    """Open the parent run, with the Prefect run in its tags, and end it with `Parent.status`.

    Where MLflow has gone by then, the stages' results stay what they are: the next run ends what is open.
    """
    tags = {"prefect.flow_run": flow_run} | ({"prefect.url": url} if url else {})
    tracker = Tracker(root)
    parent = Parent(tracker.start_pipeline(name, **tags))
    try:
        yield parent
    finally:
        try:
            tracker.reap()  # of stages that were killed
            tracker.client.set_terminated(parent.id, parent.status)
        except Exception as error:
            if status_of(error) != CAN_PASS:
                raise
            say(f"MLflow does not answer; its record of this run stays open until the next one: {redact(str(error))}")
