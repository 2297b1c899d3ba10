"""The Prefect flow that looks whether there is a reason to retrain, and starts the pipeline's deployment if so."""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, runtime
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Failed, State

from flows.checkout.exclusive import FLOW
from flows.checkout.reaping import noted
from flows.nightly import SKIPPED
from flows.service import triggers
from pipeline.errors import ChorusError
from pipeline.exclusive import held_by
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
        with noted(Path.cwd(), str(runtime.flow_run.id)):
            return _look(Project.load(Path.cwd()), deployment, data, upstream, drift, quiet_seconds)
    except ChorusError as error:
        return Failed(message=redact(str(error)))


def _look(
    project: Project, deployment: str, data: bool, upstream: bool, drift: bool, quiet_seconds: float
) -> State[Any]:
    found = triggers.new_data(project, quiet_seconds) if data else None
    found = found or (triggers.new_commit(project) if upstream else None)
    drifted = triggers.drifted(project) if drift and not found else None
    if not (found := found or drifted):
        return Completed(name="Nothing new", message="no reason to retrain")
    if holder := held_by(project.root / FLOW):
        # A run that finds no turn would use the reason up.
        return Completed(name="Busy", message=f"{found.why}; a run is at work ({holder}): the next look starts one")
    if drifted:
        triggers.mark(project, drifted.key)
    return _start(deployment, found)


def _start(deployment: str, trigger: triggers.Trigger) -> State[Any]:
    """Start a run, or find the one that this reason has started; one that had no turn or was killed does not count."""
    key, run = trigger.key, None
    while run is None or run.state.name in (SKIPPED, "Crashed"):
        key = key if run is None else f"{trigger.key}-after-{run.id}"
        try:
            run = run_deployment(
                deployment,
                parameters=trigger.parameters,
                idempotency_key=key,
                timeout=0,
                as_subflow=False,
                tags=["triggered"],
            )
        except ObjectNotFound:
            remedy = "`python -m flows.deploy` serves it"
            raise ChorusError(f"Prefect knows no deployment '{deployment}'; {remedy}") from None
    get_run_logger().info("%s: run %s (%s)", trigger.why, run.name, run.state.name)
    return Completed(message=f"{trigger.why}: run {run.name}")
