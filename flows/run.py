"""The Prefect flow: a task for each stage of `dvc.yaml`, as parallel as the slots allow."""

import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import wait
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled, Completed, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner

from flows.checkout import reaping
from flows.checkout.cache import mend_cache
from flows.onlookers.artifacts import leave_results, leave_stages
from flows.onlookers.everyone import onlookers
from flows.planning.failed import note_tries, with_second_tries
from flows.planning.graph import read_graph
from flows.planning.plan import plan
from flows.planning.urgency import urgencies
from flows.records.journal import COMPLETED, LOCAL, Book, expected_seconds, keeping
from flows.records.parent import pipeline_run
from flows.records.reasons import Account, state_of
from flows.service.server import leave_within
from flows.stages.attempts import Patience, limits_of
from flows.stages.command import stage_environment, verify
from flows.stages.execution import Execution
from flows.stages.outcomes import FAILED, GIVEN_UP, RAN, RESTORED, SKIPPED, STOPPED, VERIFY, Outcome, Result
from flows.stages.process import Processes, stopping_on_signals
from flows.stages.runners import Runner, ready
from pipeline.errors import ChorusError
from pipeline.params.redaction import redact
from pipeline.project import Project

TRIED = (RAN, RESTORED, GIVEN_UP, FAILED)  # what became of a stage that was begun
UNTOLD = "its task in Prefect ended without a word of the stage; the flow's log has the error"


# DVC is the only cache: Prefect's looks at arguments, not at files.
@task(task_run_name="{stage}", cache_policy=NO_CACHE, persist_result=False)
def run_stage(stage: str, upstream: list[Outcome], execution: Execution) -> Outcome | State[Any]:
    return _final(execution.run(stage, upstream, get_run_logger().info))


@task(name=VERIFY, task_run_name=VERIFY, cache_policy=NO_CACHE, persist_result=False)
def verify_registry(execution: Execution) -> Outcome | State[Any]:
    log = execution.overheard(VERIFY, get_run_logger().info)
    execution.watcher.began(VERIFY)
    outcome = verify(execution.processes, execution.root, execution.environment, log)
    execution.record(outcome)
    return _final(outcome)


def _final(outcome: Outcome) -> Outcome | State[Any]:
    """A task's outcome, or the state that says how it went wrong and keeps the tasks below from running."""
    if outcome.what == FAILED:
        return Failed(message=(outcome.message.splitlines() or [FAILED])[-1])
    if outcome.what == GIVEN_UP:  # named as what it is, but the tasks below run
        return Completed(name="GivenUp", message=(outcome.message.splitlines() or [GIVEN_UP])[-1], data=outcome)
    return Cancelled(message=outcome.what) if outcome.what in (STOPPED, SKIPPED) else outcome


def run_graph(execution: Execution, selected: Sequence[str]) -> tuple[Outcome, ...]:
    """Run the selected stages as tasks of the current flow, each after those it reads from, and wait for all of them.

    Below a stage that fails nothing runs; stages that do not depend on it finish.
    """
    futures: dict[str, Any] = {}
    waits = execution.begin(selected)
    for stage, above in waits.items():
        upstream = [futures[name] for name in above]
        futures[stage] = run_stage.with_options(name=stage).submit(stage, upstream, execution)
    try:
        wait(list(futures.values()))
    except BaseException:
        execution.processes.stop()
        raise
    for stage, above in waits.items():
        if stage not in execution.outcomes:
            barred = execution.processes.stopped or not all(execution.outcomes[name].succeeded for name in above)
            execution.record(Outcome(stage, SKIPPED) if barred else Outcome(stage, FAILED, message=UNTOLD))
    return tuple(execution.outcomes[stage] for stage in selected)


# Threads wait for upstream stages and cost nothing: what computes at once is bounded by the slots.
@flow(name="retrain", task_runner=ThreadPoolTaskRunner(), persist_result=False)
def retrain(
    root: Path,
    only: tuple[str, ...] = (),
    force: bool = False,
    slots: int | None = None,
    runner: str = LOCAL,
    ray_address: str | None = None,
) -> State[Any]:
    """Bring the checkout at `root` up to date; the data of the returned state is a `Result`.

    Whoever calls it holds the checkout (`flows.checkout.exclusive`).

    only: names of the stages to look at (`train` stands for all of `train@…`); none means all.
    force: run them although nothing has changed.
    slots: how many stages may compute at once; by default `flow.members_per_gpu` a GPU, or cores ÷ `compute.threads`;
        on a cluster as many as it has room for.
    runner: `local`, on this machine, or `ray`, on the nodes of the cluster at `ray_address` (default: RAY_ADDRESS).
    """
    try:
        with keeping(root, str(runtime.flow_run.id), runner) as book:
            where = Runner(runner, ray_address, slots)
            return _final_state(_retrain(Project.load(root), book, only, force, where))
    except ChorusError as error:
        return Failed(message=redact(str(error)), data=error)
    except Exception as error:  # Prefect would log it as it is, with the passwords that may stand in it
        get_run_logger().error(redact("".join(traceback.format_exception(error))))
        return Failed(message=redact(f"{type(error).__name__}: {error}"), data=error)


def _retrain(project: Project, book: Book, only: Sequence[str], force: bool, runner: Runner) -> Result:
    processes = Processes()
    log = get_run_logger()
    with stopping_on_signals(processes, log.warning):
        reaping.note_flow(project.root, str(runtime.flow_run.id))
        reaping.reap(project.root, log.warning)
        reaping.settle(project.root, log.warning)
        mend_cache(project.root, log.warning)
        asked = project.params.flow
        graph = with_second_tries(read_graph(project.root), project.root, asked.retry_failed_hours)
        selected = graph.select(only)
        limits = limits_of(graph, asked.timeout, asked.timeouts)
        steps, expected = plan(graph, selected, force=force), expected_seconds(project.root)
        run, url = str(runtime.flow_run.id), runtime.flow_run.ui_url if PREFECT_API_URL.value() else None
        with onlookers(project.root, run, Account(graph, steps, book.add), expected) as watcher:
            with (
                ready(runner, project, graph, urgencies(graph, steps, expected), force) as (at_once, execution_of),
                pipeline_run(project.root, runtime.flow_run.name, run, url, log.warning) as parent,
            ):
                log.info("MLflow run %s; %d stages, %d at once", parent.id, len(selected), at_once)
                environment = stage_environment(project.params.compute.threads, parent.id)
                patience = Patience(asked.retries, asked.retry_seconds)
                execution = execution_of(
                    processes=processes,
                    environment=environment,
                    patience=patience,
                    limits=limits,
                    watcher=watcher,
                    busy=asked.busy,
                )
                result = _carry_out(execution, selected)
                parent.status = result.mlflow_status
            end = state_of(result), result.message if state_of(result) != COMPLETED else ""
            note_tries(project.root, [outcome.stage for outcome in result.outcomes if outcome.what in TRIED])
            book.end(*end)
            watcher.finished(*end)
        if result.stopped_by is not None and threading.current_thread() is threading.main_thread():
            leave_within(15, 128 + result.stopped_by, log.warning)
        try:
            leave_stages(result.outcomes, parent.id)
            if "register" in selected and result.stopped_by is None and not result.failed:
                leave_results(project.root)
        except Exception as error:  # all is done and written down: a page without its tables is no failure
            log.warning("Prefect's page of this run stays without tables: %s", redact(str(error)))
    return result


def _final_state(result: Result) -> State[Any]:
    """The final state of the flow run, with the result as its data."""
    if result.stopped_by is not None:
        return Cancelled(message=result.message, data=result)
    if result.failed:
        return Failed(message=result.message, data=result)
    return Completed(message=result.message, data=result)


def _carry_out(execution: Execution, selected: Sequence[str]) -> Result:
    outcomes = run_graph(execution, selected)
    result = Result(outcomes, execution.processes.stopped_by)
    if "register" in selected and not result.failed and not execution.processes.stopped:
        verify_registry.submit(execution).wait()
        checked = execution.outcomes.get(VERIFY, Outcome(VERIFY, FAILED, message=UNTOLD))
        result = Result((*outcomes, checked), execution.processes.stopped_by)
    return result
