"""MLflow runs: one parent for each pipeline run, one child for each member; the only place that opens the store.

Runs are found again by tags that say what they hold (a content hash), never by an id kept in a file.
"""

import fcntl
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

EXPERIMENT = "chorus"
PIPELINE_RUN = "CHORUS_PIPELINE_RUN"  # environment: id of the parent run that the flow opened

KIND, KEY, PROCESS = "chorus.kind", "chorus.key", "chorus.process"
PARENT = "mlflow.parentRunId"


def tracking_uri(root: Path | None = None) -> str:
    """Return `MLFLOW_TRACKING_URI`, or the SQLite file in the project's folder as an absolute address."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(root or Path.cwd()).resolve() / 'mlflow.db'}"


def process_identity(process: psutil.Process) -> str:
    """Name a process so that no later one with the same id is taken for it."""
    return f"{platform.node()}:{process.pid}:{process.create_time():.2f}"


def is_alive(identity: str) -> bool:
    """Whether the process still runs; one on another machine counts as alive, for it cannot be seen from here."""
    host, pid, _ = identity.rsplit(":", 2)
    if host != platform.node():
        return True
    try:
        return process_identity(psutil.Process(int(pid))) == identity
    except psutil.NoSuchProcess:
        return False


def driver() -> psutil.Process:
    """Return the process that drives this stage: the `dvc` above it, or this process when there is none."""
    here = psutil.Process()
    for parent in here.parents():
        try:
            command = parent.cmdline()
        except psutil.Error:
            continue
        if any(Path(word).name == "dvc" for word in command[:3]):
            return parent
    return here


class Run:
    """One open MLflow run; every method writes at once."""

    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        self.client, self.id = client, run_id

    def tag(self, **tags: object) -> None:
        """Set tags; `chorus_key="x"` becomes the tag `chorus.key`."""
        for name, value in tags.items():
            self.client.set_tag(self.id, name.replace("_", ".", 1), str(value)[:5000])

    def params(self, values: Mapping[str, object], prefix: str = "") -> None:
        """Log parameters; nested mappings become dotted names."""
        for name, value in values.items():
            if isinstance(value, Mapping):
                self.params(value, f"{prefix}{name}.")
            else:
                self.client.log_param(self.id, f"{prefix}{name}", value)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers at a step (training: images seen)."""
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        self.client.log_batch(self.id, metrics=[Metric(k, float(v), now, step) for k, v in values.items()])

    def history(self, rows: list[dict[str, float]]) -> None:
        """Log many rows at once; each has the key `nimg` (its step) beside its numbers."""
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        metrics = [Metric(k, float(v), now, int(row["nimg"])) for row in rows for k, v in row.items() if k != "nimg"]
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(self.id, metrics=metrics[start : start + 1000])

    def image(self, image: Any, path: str) -> None:
        """Store a PIL image or a uint8 H×W×C array as an artefact, e.g. `samples/000100000.png`."""
        self.client.log_image(self.id, image, artifact_file=path)

    def file(self, path: Path, folder: str | None = None) -> None:
        """Store a file as an artefact."""
        self.client.log_artifact(self.id, str(path), folder)

    def dataset(self, manifest: Mapping[str, Any]) -> None:
        """Record the prepared data set (`data/prepared/manifest.json`) as this run's input."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        profile = {"counts": manifest["counts"], "size": manifest["size"], "channels": manifest["channels"]}
        data = Dataset(
            name=str(manifest["source"]),
            digest=str(manifest["hash"])[:36],
            source_type="local",
            source=json.dumps({"source": manifest["source"], "hash": manifest["hash"]}),
            profile=json.dumps(profile),
        )
        self.client.log_inputs(self.id, datasets=[DatasetInput(data, [InputTag("mlflow.data.context", "training")])])


class Tracker:
    """The project's MLflow store, created once and safely when it is new."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = tracking_uri(root)
        local = self.uri.startswith("sqlite:///")
        lock_folder = root / ".chorus"
        lock_folder.mkdir(exist_ok=True)
        # Several processes that open a fresh SQLite store at once break it for good.
        with (lock_folder / "tracking.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            from mlflow import MlflowClient

            self.client = MlflowClient(self.uri, registry_uri=self.uri)
            experiment = self.client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                artifacts = (root / "mlartifacts").as_uri() if local else None
                self.experiment: str = self.client.create_experiment(EXPERIMENT, artifact_location=artifacts)
            else:
                self.experiment = experiment.experiment_id

    def find(self, *, order: str = "attributes.start_time DESC", **tags: str) -> "list[MlflowRun]":
        """Return runs that bear all these tags (`chorus_key="x"` is the tag `chorus.key`), newest first."""
        terms = [f"tags.`{name.replace('_', '.', 1)}` = '{value}'" for name, value in tags.items()]
        found = self.client.search_runs([self.experiment], " and ".join(terms), max_results=1000, order_by=[order])
        return list(found)

    def start_pipeline(self, name: str | None = None, **tags: str) -> Run:
        """Open a parent run for a pipeline run driven by `driver()`, after ending those whose driver has died."""
        self.reap()
        identity = process_identity(driver())
        run = self._create(name, {KIND: "pipeline", PROCESS: identity, **tags})
        return Run(self.client, run)

    def pipeline(self) -> Run:
        """Return the parent run: the flow's, or that of the `dvc repro` above this process, opened when first asked."""
        if given := os.environ.get(PIPELINE_RUN):
            return Run(self.client, given)
        identity = process_identity(driver())
        for run in self.find(chorus_kind="pipeline", chorus_process=identity):
            if run.info.status == "RUNNING":
                return Run(self.client, run.info.run_id)
        return self.start_pipeline()

    def finish_pipeline(self) -> None:
        """End the parent run unless a flow opened it, which ends it itself."""
        if not os.environ.get(PIPELINE_RUN):
            self.client.set_terminated(self.pipeline().id, "FINISHED")

    @contextmanager
    def child(self, kind: str, name: str, key: str, **tags: str) -> Iterator[Run]:
        """Open a child of the pipeline's run; it ends FINISHED, KILLED (interrupt, SIGTERM) or FAILED (an error).

        key: hash of what the run makes or is made from, so that it can be found again with `find(chorus_key=key)`.
        """
        parent = self.pipeline()
        identity = process_identity(psutil.Process())
        run = Run(self.client, self._create(name, {KIND: kind, KEY: key, PROCESS: identity, PARENT: parent.id, **tags}))
        try:
            yield run
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt | SystemExit)
            run.tag(chorus_error=repr(error))
            self.client.set_terminated(run.id, "KILLED" if stopped else "FAILED")
            raise
        self.client.set_terminated(run.id, "FINISHED")

    def reap(self) -> None:
        """End runs left RUNNING by processes that are gone: KILLED, as nothing says that they were complete."""
        for run in self.client.search_runs([self.experiment], "attributes.status = 'RUNNING'", max_results=1000):
            identity = run.data.tags.get(PROCESS)
            if identity and not is_alive(identity):
                self.client.set_terminated(run.info.run_id, "KILLED")

    def _create(self, name: str | None, tags: dict[str, str]) -> str:
        run = self.client.create_run(self.experiment, run_name=name, tags=tags)
        return str(run.info.run_id)
