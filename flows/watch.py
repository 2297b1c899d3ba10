"""The Prefect flow that looks whether there is a reason to retrain, and starts the pipeline's deployment if so."""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Failed, State

from flows.service import triggers
from pipeline.errors import ChorusError
from pipeline.params.redaction import redact
from pipeline.project import Project


@flow(name="watch", persist_result=False)
def watch(
    deployment: str = "nightly/chorus",
    data: bool = True,
    upstream: bool = False,
    drift: bool = False,
    quiet_seconds: float = 60,
) -> State[Any]:
    """Look at the checkout that is the working folder, and start a run for what is new; each reason starts one run.

    deployment: what is started.
    data: look whether what `data.watch` names is other than what was read last.
    upstream: look whether the branch's upstream has newer commits, which the run then takes over.
    drift: look whether the new images of `data.root` differ from those that were trained on.
    quiet_seconds: for how long a watched folder has to be left in peace.
    """
    try:
        project = Project.load(Path.cwd())
        found = triggers.new_data(project, quiet_seconds) if data else None
        found = found or (triggers.new_commit(project) if upstream else None)
        if not found and drift and (found := triggers.drifted(project)):
            triggers.mark(project, found.key)
        if not found:
            return Completed(name="Nothing new", message="no reason to retrain")
        return _start(deployment, found)
    except ChorusError as error:
        return Failed(message=redact(str(error)))


def _start(deployment: str, trigger: triggers.Trigger) -> State[Any]:
    """Start a run, or find the one that this reason has started already."""
    try:
        run = run_deployment(
            deployment,
            parameters=trigger.parameters,
            idempotency_key=trigger.key,
            timeout=0,
            as_subflow=False,
            tags=["triggered"],
        )
    except ObjectNotFound:
        raise ChorusError(f"Prefect knows no deployment '{deployment}'; `python -m flows.deploy` serves it") from None
    get_run_logger().info("%s: run %s (%s)", trigger.why, run.name, run.state.name)
    return Completed(message=f"{trigger.why}: run {run.name}")
