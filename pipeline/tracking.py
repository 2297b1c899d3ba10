"""MLflow runs: one parent for each pipeline run, one child for each member.

Runs are found again by tags that say what they hold (a content hash), never by an id kept in a file.
"""

import fcntl
import importlib
import json
import logging
import os
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from pipeline.errors import ChorusError
from pipeline.exclusive import CLOCK_SECONDS
from pipeline.lineage import read_lineage
from pipeline.params.redaction import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

EXPERIMENT = "chorus"
PIPELINE_RUN = "CHORUS_PIPELINE_RUN"  # environment: id of the parent run that the flow opened

ARTIFACT_ROOT = "MLFLOW_DEFAULT_ARTIFACT_ROOT"  # environment: as MLflow's server calls the same setting

KIND, KEY, PROCESS = "chorus.kind", "chorus.key", "chorus.process"
PARENT = "mlflow.parentRunId"


def tracking_uri(root: Path | None = None) -> str:
    """Return `MLFLOW_TRACKING_URI`, or the SQLite file in the project's folder as an absolute address."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(root or Path.cwd()).resolve() / 'mlflow.db'}"


def database_engine(uri: str) -> str | None:
    """Return which database a tracking address names, None where it is another kind of store."""
    from mlflow.store.db.db_types import DATABASE_ENGINES

    engine = re.split(r"[+:]", uri, maxsplit=1)[0]
    return engine if engine in DATABASE_ENGINES else None


def artifact_root(uri: str, root: Path) -> str | None:
    """Return where artefacts of a new experiment go; None where MLflow's server decides that.

    Clients that write to a database themselves decide: without a word, MLflow would choose a folder of this machine,
    and tell everyone who reads the database of it. Raises `ChorusError` where nothing says where instead.
    """
    if not (engine := database_engine(uri)):
        return None
    if given := os.environ.get(ARTIFACT_ROOT):
        return given
    if engine == "sqlite":
        return (root / "mlartifacts").as_uri()
    raise ChorusError(
        f"MLFLOW_TRACKING_URI is a database, and nothing says where artefacts go: set {ARTIFACT_ROOT}, for example to "
        "s3://BUCKET/mlflow"
    )


def quieten() -> None:
    """Keep MLflow, which is to be imported after this, from talking between our own lines, and to others."""
    # Bars, news of migrations and packing, and each run's address when it ends, with the password that may stand in it.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    # What is trained here is nobody else's business; set the variable to decide otherwise.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in ("mlflow.store.db.utils", "mlflow.pyfunc"):
        logging.getLogger(name).setLevel(logging.WARNING)


def import_store(root: Path) -> None:
    """Import what opening the store at `tracking_uri` will need, which takes seconds."""
    quieten()
    importlib.import_module("mlflow")
    if database_engine(tracking_uri(root)):
        importlib.import_module("mlflow.store.tracking.sqlalchemy_store")


def process_identity(process: psutil.Process) -> str:
    """Name a process so that no later one with the same id is taken for it."""
    return f"{platform.node()}:{process.pid}:{process.create_time():.2f}"


def same_process(identity: str, other: str) -> bool:
    """Whether two identities name one process.

    Linux gives a start as ticks since boot, and the time of the boot moves when the clock is set, so starts are
    compared with a margin; no process id comes round again within it.
    """
    process, _, start = identity.rpartition(":")
    other_process, _, other_start = other.rpartition(":")
    return process == other_process and abs(float(start) - float(other_start)) < CLOCK_SECONDS


def is_alive(identity: str) -> bool:
    """Whether the process still runs; one on another machine counts as alive, for it cannot be seen from here."""
    if not is_here(identity):
        return True
    try:
        process = psutil.Process(int(identity.rsplit(":", 2)[1]))
        return same_process(process_identity(process), identity) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_here(identity: str) -> bool:
    """Whether a process is one of this host."""
    return identity.rsplit(":", 2)[0] == platform.node()


def is_dvc(command: list[str]) -> bool:
    """Whether a command line is DVC's: `dvc …`, `python /…/bin/dvc …` or `python -m dvc …`."""
    if command and Path(command[0]).name.startswith("python"):
        command = [word for word in command[1:] if word != "-m"]
    return bool(command) and Path(command[0]).name == "dvc"


def driver() -> psutil.Process:
    """Return the process that drives this stage: the `dvc` above it, or this process when there is none."""
    here = psutil.Process()
    for parent in here.parents():
        try:
            if is_dvc(parent.cmdline()):
                return parent
        except psutil.Error:
            continue
    return here


def dotted(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the values of nested mappings with the names of all levels, joined by dots."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


class Run:
    """One open MLflow run; every method writes at once."""

    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        self.client, self.id = client, run_id

    def tag(self, **tags: object) -> None:
        """Set tags, without credentials that may stand in a message; `chorus_key="x"` becomes the tag `chorus.key`."""
        for name, value in tags.items():
            self.client.set_tag(self.id, name.replace("_", ".", 1), redact(str(value))[:5000])

    def params(self, values: Mapping[str, object]) -> None:
        """Log parameters at once; nested mappings become dotted names."""
        from mlflow.entities import Param

        logged = [Param(name, str(value)) for name, value in dotted(values)]
        for start in range(0, len(logged), 100):
            self.client.log_batch(self.id, params=logged[start : start + 100])

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
        lock_folder = root / ".chorus"
        lock_folder.mkdir(exist_ok=True)
        # Several processes that open a fresh SQLite store at once break it for good.
        with (lock_folder / "tracking.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            quieten()
            from mlflow import MlflowClient

            try:
                self.client = MlflowClient(self.uri, registry_uri=self.uri)
                experiment = self.client.get_experiment_by_name(EXPERIMENT)
            except ImportError as error:
                raise ChorusError(
                    f"the database of MLFLOW_TRACKING_URI needs a driver ({error}): pip install -e '.[services]', and "
                    "begin the address with postgresql+psycopg2://"
                ) from None
            if experiment is None:
                self.experiment = self._create_experiment()
            else:
                if experiment.lifecycle_stage == "deleted":
                    self.client.restore_experiment(experiment.experiment_id)
                self.experiment = str(experiment.experiment_id)

    def _create_experiment(self) -> str:
        """Create the experiment and return its id; where another machine was first, that of its experiment."""
        from mlflow.exceptions import MlflowException

        # MLflow's pages then open on training runs and not on traces of language models.
        tags = {"mlflow.experimentKind": "custom_model_development"}
        try:
            return str(self.client.create_experiment(EXPERIMENT, artifact_root(self.uri, self.root), tags))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return str(self.client.get_experiment_by_name(EXPERIMENT).experiment_id)

    def find(self, *, order: str = "attributes.start_time DESC", **tags: str) -> "list[MlflowRun]":
        """Return runs that bear all these tags (`chorus_key="x"` is the tag `chorus.key`), newest first."""
        terms = [f"tags.`{name.replace('_', '.', 1)}` = '{value}'" for name, value in tags.items()]
        found = self.client.search_runs([self.experiment], " and ".join(terms), max_results=1000, order_by=[order])
        return list(found)

    def start_pipeline(self, name: str | None = None, **tags: str) -> Run:
        """Open a parent run for a pipeline run driven by `driver()`, after ending those whose driver has died."""
        self.reap()
        lineage = read_lineage(self.root)
        made_from = {"mlflow.source.git.commit": lineage.commit, "chorus.dirty": str(lineage.dirty).lower()}
        run = self._create(name, {KIND: "pipeline", PROCESS: process_identity(driver()), **made_from, **tags})
        return Run(self.client, run)

    def pipeline(self) -> Run:
        """Return the parent run: the flow's, or that of the `dvc repro` above this process, opened when first asked."""
        if given := os.environ.get(PIPELINE_RUN):
            return Run(self.client, given)
        return self._of_driver() or self.start_pipeline()

    def finish_pipeline(self) -> None:
        """End the parent run, where there is one, unless a flow opened it, which ends it itself."""
        if not os.environ.get(PIPELINE_RUN) and (run := self._of_driver()):
            self.client.set_terminated(run.id, "FINISHED")

    def _of_driver(self) -> Run | None:
        """Return the open parent run of the process that drives this one."""
        identity = process_identity(driver())
        open_parents = f"attributes.status = 'RUNNING' and tags.`{KIND}` = 'pipeline'"
        for run in self.client.search_runs([self.experiment], open_parents):
            opened_by = run.data.tags.get(PROCESS)
            if opened_by and same_process(opened_by, identity):
                return Run(self.client, run.info.run_id)
        return None

    @contextmanager
    def child(self, kind: str, name: str, key: str, **tags: str) -> Iterator[Run]:
        """Open a child of the pipeline's run; it ends FINISHED, KILLED (interrupt, SIGTERM) or FAILED (an error).

        key: hash of what the run makes or is made from, so that it can be found again with `find(chorus_key=key)`.
        """
        with self.apart(kind, name, key, **{PARENT: self.pipeline().id}, **tags) as run:
            yield run

    @contextmanager
    def apart(self, kind: str, name: str, key: str, **tags: str) -> Iterator[Run]:
        """Open a run that belongs to no pipeline's; it ends as a child does."""
        identity = process_identity(psutil.Process())
        run = Run(self.client, self._create(name, {KIND: kind, KEY: key, PROCESS: identity, **tags}))
        status = "FINISHED"
        try:
            yield run
        except BaseException as error:
            if not (isinstance(error, SystemExit) and not error.code):
                status = "KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED"
                run.tag(chorus_error=repr(error))
            raise
        finally:
            self.client.set_terminated(run.id, status)

    def reap(self) -> None:
        """End runs left RUNNING by processes that are gone: KILLED, as nothing says that they were complete.

        So end the parents of a `dvc repro` that did not reach the last stage, whose end alone says so. Whether a
        process of another host lives cannot be seen; but a child is over when its parent is.
        """
        ended: dict[str, bool] = {}
        for run in self.client.search_runs([self.experiment], "attributes.status = 'RUNNING'", max_results=1000):
            identity, parent = run.data.tags.get(PROCESS), run.data.tags.get(PARENT)
            if not identity:
                continue
            if is_alive(identity):
                if is_here(identity) or not parent:
                    continue
                if parent not in ended:
                    ended[parent] = self.client.get_run(parent).info.status != "RUNNING"
                if not ended[parent]:
                    continue
            self._kill(run.info.run_id)

    def end_flow(self, flow_run: str) -> None:
        """End the pipeline's run of a Prefect flow run that was killed, on whatever host."""
        for run in self.find(prefect_flow_run=flow_run):
            self._kill(run.info.run_id)

    def _kill(self, run: str) -> None:
        # Its process may have ended it and exited since it was found; what stands there stays.
        if self.client.get_run(run).info.status == "RUNNING":
            self.client.set_terminated(run, "KILLED")

    def _create(self, name: str | None, tags: dict[str, str]) -> str:
        run = self.client.create_run(self.experiment, run_name=name, tags=tags)
        return str(run.info.run_id)
