"""The Prefect flow that schedules, triggers and people start: `python -m flows.retrain` as a run of a deployment.

The stages run in a flow of their own below it; a run with nothing to do has none.
"""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, runtime
from prefect.states import Cancelled, Completed, Failed, State

from flows.checkout.reaping import noted
from flows.records.journal import LOCAL, TRIGGER
from flows.retrain import Ending, parser, retrained
from pipeline.params.redaction import redact

ERRAND = "scheduled"
SKIPPED = "Skipped"  # the state's name of a run that had no turn


@flow(name="nightly", persist_result=False)
def nightly(
    only: list[str] | None = None,
    force: bool = False,
    slots: int | None = None,
    commit: bool = False,
    families: list[str] | None = None,
    budget_factor: float = 1.0,
    update: bool = False,
    runner: str = LOCAL,
    ray_address: str | None = None,
) -> State[Any]:
    """Bring the checkout that is the working folder up to date.

    only: names of the stages to look at (`train` stands for all of `train@…`); none means all.
    force: run them although nothing has changed.
    slots: how many stages may compute at once; by default one a GPU, or cores ÷ `compute.threads`.
    commit: commit new pins of warm starts, and at the end dvc.lock.
    families, budget_factor: an experiment beside the checkout, with these families alone and budgets times the factor.
    update: first take what the branch's upstream and the DVC remote have.
    runner, ray_address: where stages run, as `python -m flows.retrain` has them.
    """
    options = parser().parse_args([])
    options.only, options.force, options.slots, options.commit = tuple(only or ()), force, slots, commit
    options.families, options.budget_factor, options.update = tuple(families or ()), budget_factor, update
    options.runner, options.ray_address = runner, ray_address
    TRIGGER.set(runtime.deployment.name or TRIGGER.get())
    plain = not (only or force or families or update or budget_factor != 1)
    log = get_run_logger()
    with noted(Path.cwd(), str(runtime.flow_run.id)):
        return state_of(retrained(options, Path.cwd(), lambda line: log.info(redact(line)), ERRAND if plain else None))


def state_of(ending: Ending) -> State[Any]:
    """Return the state that a deployment's run ends in; one that had no turn is no failure."""
    if ending.skipped:
        return Completed(name=SKIPPED, message=ending.message)
    if ending.status >= 128:
        return Cancelled(message=ending.message)
    if ending.status:
        return Failed(message=ending.message)
    return Completed(name="Nothing to do" if ending.idle else "Completed", message=ending.message)
