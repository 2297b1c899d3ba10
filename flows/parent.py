"""The MLflow run that stands for one run of the flow; the stages' own runs are its children."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.tracking import Run, Tracker, quieten


class Parent:
    """An open parent run; `status` is what it ends with."""

    def __init__(self, run: Run) -> None:
        self.id, self.status = run.id, "FAILED"


@contextmanager
def pipeline_run(root: Path, name: str, flow_run: str, url: str | None = None) -> Iterator[Parent]:
    """Open the parent run, with the Prefect run in its tags, and end it with `Parent.status`."""
    tags = {"prefect.flow_run": flow_run} | ({"prefect.url": url} if url else {})
    tracker = Tracker(root)
    parent = Parent(tracker.start_pipeline(name, **tags))
    try:
        yield parent
    finally:
        tracker.reap()  # of stages that were killed
        tracker.client.set_terminated(parent.id, parent.status)


def import_mlflow() -> None:
    """Import what a parent run needs first of all, which takes seconds."""
    quieten()
    importlib.import_module("mlflow")
