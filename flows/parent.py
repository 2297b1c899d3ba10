"""The MLflow run that stands for one run of the flow; the stages' own runs are its children."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.git import head, is_dirty
from pipeline.tracking import Run, Tracker


class Parent:
    """An open parent run; `status` is what it ends with."""

    def __init__(self, run: Run) -> None:
        self.id, self.status = run.id, "FAILED"


@contextmanager
def pipeline_run(root: Path, name: str, flow_run: str, url: str | None = None) -> Iterator[Parent]:
    """Open the parent run, with the code's commit and the Prefect run in its tags, and end it with `Parent.status`."""
    tags = {
        "mlflow.source.git.commit": head(root) or "",
        "git.dirty": str(is_dirty(root)).lower(),
        "prefect.flow_run": flow_run,
        "prefect.url": url or "",
    }
    tracker = Tracker(root)
    parent = Parent(tracker.start_pipeline(name, **{key: value for key, value in tags.items() if value}))
    try:
        yield parent
    finally:
        tracker.client.set_terminated(parent.id, parent.status)
