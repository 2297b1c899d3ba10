"""Progress on the flow run's page in Prefect: a bar for each thing that a stage works on, its rate and time left."""

import contextvars
import re
import sys
import threading
import uuid
from dataclasses import dataclass

from prefect.artifacts import ProgressArtifact, update_progress_artifact
from prefect.utilities.context import get_task_and_flow_run_ids

from flows.onlookers.watcher import Watcher
from flows.stages.outcomes import RAN, Outcome
from pipeline.params.redaction import redact
from pipeline.progress import Progress

EVERY = 15.0  # seconds between updates
PATIENCE = 5.0  # seconds that a run waits at its end for a server that does not answer


@dataclass
class _Bar:
    """One artifact: what it shows, the runs that it belongs to, and whether Prefect has been told."""

    progress: Progress
    task_run: uuid.UUID | None
    flow_run: uuid.UUID | None
    end: str = ""
    told: bool = False
    artifact: uuid.UUID | None = None

    def tell(self) -> None:
        self.told = True  # first: what comes meanwhile is told the next time
        percent = 100.0 if self.end == RAN else self.progress.percent
        said = f"{self.progress.what}: {self.end or self.progress.summary}"
        if self.artifact is not None:
            update_progress_artifact(self.artifact, percent, said)
            return
        key = re.sub(r"[^a-z0-9]+", "-", self.progress.what.lower()).strip("-")
        owner = {"task_run_id": self.task_run, "flow_run_id": self.flow_run}
        self.artifact = ProgressArtifact(key=key, description=said, progress=percent, **owner).create().id


class ProgressArtifacts(Watcher):
    """Keeps artifacts of the current flow run up to date, from a thread of its own: a slow server holds nothing up."""

    def __init__(self, every: float = EVERY) -> None:
        self._every = every
        self._bars: dict[str, dict[str, _Bar]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        # The flow's client is in its context; a task's would be closed before its last progress is told.
        self._thread = threading.Thread(target=contextvars.copy_context().run, args=(self._work,), daemon=True)
        self._thread.start()

    def said(self, stage: str, line: str) -> None:
        if (progress := Progress.parse(line)) is None:
            return
        with self._lock:
            bars = self._bars.setdefault(stage, {})
            if bar := bars.get(progress.what):
                bar.progress, bar.end, bar.told = progress, "", False
            else:
                for before in bars.values():  # a stage works on one thing after another
                    before.end, before.told = RAN, False
                bars[progress.what] = _Bar(progress, *get_task_and_flow_run_ids())

    def ended(self, outcome: Outcome) -> None:
        with self._lock:
            for bar in self._bars.get(outcome.stage, {}).values():
                if bar.end != RAN:
                    bar.end, bar.told = outcome.what, False

    def close(self) -> None:
        """Tell what is new once more; a server that does not answer is waited for a moment and no longer."""
        self._closing.set()
        self._thread.join(PATIENCE)

    def _work(self) -> None:
        closing = False
        while not closing:
            closing = self._closing.wait(self._every)
            with self._lock:
                new = [bar for bars in self._bars.values() for bar in bars.values() if not bar.told]
            for bar in new:
                try:
                    bar.tell()
                except Exception as error:  # whatever the client raises: the next round tries again
                    bar.told = False
                    print(redact(f"chorus: Prefect was not told of progress: {error}"), file=sys.stderr, flush=True)
                    break
