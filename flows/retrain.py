"""`python -m flows.retrain`: bring everything up to date, from the images to the registered model.

Exit status: 0 done, 1 a stage or the check of the registry failed, 2 bad input, 74 no room to write, 75 what did
not answer may do so later, 128 + the signal that stopped it.
"""

import argparse
import signal
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import Popen

from flows.checkout.exclusive import alone
from flows.checkout.git import commit_lock
from flows.checkout.pins import commit_pins, settle_warm_starts
from flows.checkout.reaping import Say, dead_flows, forget_flow, reap, settle
from flows.checkout.upstream import update
from flows.planning.failed import with_second_tries
from flows.planning.graph import read_graph
from flows.planning.plan import LEAVE, plan, render
from flows.records.journal import COMPLETED, IDLE, LOCAL, enter_refused, keeping
from flows.records.reasons import state_of
from flows.records.summary import print_summary, read_results
from flows.service.server import connect
from flows.stages.command import on_cue, stage_environment, verify_on_cue
from flows.stages.outcomes import CLEAN, Outcome, Result
from flows.stages.process import Processes, stopping_on_signals
from flows.stages.runners import RUNNERS
from pipeline.errors import ChorusError
from pipeline.exclusive import BusyError
from pipeline.exits import NO_ROOM, no_room, status_of
from pipeline.params.redaction import redact, redacted_traceback
from pipeline.project import Project
from pipeline.tracking import import_store


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m flows.retrain", description="Run the stages that have work to do.")
    root.add_argument("--plan", action="store_true", help="print what would run and why; run nothing")
    root.add_argument(
        "--only",
        metavar="STAGE[,STAGE]",
        type=names,
        default=(),
        help="these stages and nothing else; `train` stands for every train@FAMILY",
    )
    root.add_argument("--force", action="store_true", help="run stages although nothing has changed")
    root.add_argument("--commit", action="store_true", help="commit new pins of warm starts, and at the end dvc.lock")
    root.add_argument("--slots", metavar="N", type=count, help="stages at once (default: GPUs, or cores ÷ threads)")
    root.add_argument("--runner", choices=RUNNERS, default=LOCAL, help="where stages run (default: local)")
    root.add_argument("--ray-address", metavar="ADDRESS", help="of a running Ray cluster (default: RAY_ADDRESS)")
    root.add_argument(
        "--families",
        metavar="NAME[,NAME]",
        type=names,
        default=(),
        help="an experiment with these families alone, in a worktree of its own",
    )
    root.add_argument(
        "--budget-factor", metavar="X", type=float, default=1.0, help="an experiment with budgets times X"
    )
    root.add_argument("--update", action="store_true", help="first take what the branch's upstream and the remote have")
    return root


def names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least one slot is needed")
    return number


@dataclass(frozen=True)
class Ending:
    """How a run ended: its exit status, what there is to say about that, and whether it had nothing to do or no turn.

    skipped: another run was at work, and `flow.busy` says not to wait for it.
    """

    status: int
    message: str
    idle: bool = False
    skipped: bool = False


def retrained(options: argparse.Namespace, root: Path, say: Say, errand: str | None = None) -> Ending:
    """Bring the checkout at `root` up to date; whatever starts a run, a person or a schedule, comes through here.

    errand: see `flows.checkout.exclusive.alone`.
    """
    try:
        project = Project.load(root)
        with alone(project.root, project.params.flow.busy, say, errand):
            reap(project.root, say)
            if options.update:
                project = update(project.root, say)
            if options.families or options.budget_factor != 1:
                return _experiment(options, project, say)
            project = settle_warm_starts(project, say)
            if options.commit and (committed := commit_pins(root)):
                say(committed)
            ending = _run(options, project, say)
            if ending.status == 0 and options.commit:
                say(commit_lock(root, *read_results(root)))
            return ending
    except ChorusError as error:
        say(f"chorus: {error}")
        enter_refused(root, str(error))
        return Ending(status_of(error), redact(str(error)), skipped=isinstance(error, BusyError))
    except Exception as error:
        if status_of(error) != NO_ROOM:
            raise
        say(f"chorus: {no_room(error)}")
        return Ending(NO_ROOM, redact(no_room(error)))


def show_plan(options: argparse.Namespace, root: Path) -> None:
    """Print what a run would do; raises `ChorusError` for bad input."""
    if options.families or options.budget_factor != 1 or options.update:
        raise ChorusError("--plan is of the checkout as it is: leave --families, --budget-factor and --update out")
    project = Project.load(root)
    graph = with_second_tries(read_graph(root), root, project.params.flow.retry_failed_hours)
    print(render(plan(graph, graph.select(options.only), force=options.force)))


def _run(options: argparse.Namespace, project: Project, say: Say) -> Ending:
    """Run what has to be run in a checkout that is held."""
    # What a check of the registry imports takes longer than the plan, so it gets ready meanwhile.
    with on_cue(project.root, stage_environment(project.params.compute.threads)) as check:
        graph = with_second_tries(read_graph(project.root), project.root, project.params.flow.retry_failed_hours)
        selected = graph.select(options.only)
        if all(step.what == LEAVE for step in plan(graph, selected, force=options.force)):
            return _nothing_to_do(project.root, selected, check, say)
    return _flow(options, project.root, say)


def _experiment(options: argparse.Namespace, project: Project, say: Say) -> Ending:
    """Run with other parameters beside the checkout, which is held meanwhile: the devices are the same."""
    from flows.checkout.overrides import experiment

    if options.runner != LOCAL:
        raise ChorusError("an experiment runs on this machine: nodes work on what is committed; leave --runner out")
    with (
        experiment(project, options.families, options.budget_factor, say) as inside,
        alone(inside.root, project.params.flow.busy, say),
    ):
        if options.commit:
            say("an experiment commits nothing")
        reap(inside.root, say)
        return _run(options, inside, say)


def _nothing_to_do(root: Path, selected: tuple[str, ...], check: "Popen[str]", say: Say) -> Ending:
    """Check the registry alone: neither Prefect nor MLflow has a run to record."""
    say("nothing to do: all stages are up to date")
    close_books_of_dead_flows(root, say)
    outcomes = [Outcome(stage, CLEAN) for stage in selected]
    processes = Processes()
    with keeping(root) as book:
        if "register" in selected:
            with stopping_on_signals(processes, say):
                outcomes.append(verify_on_cue(processes, check, say))
        result = Result(tuple(outcomes), processes.stopped_by)
        state = state_of(result)
        book.end(*((IDLE,) if state == COMPLETED else (state, result.message)))
    print_summary(root, outcomes)
    return _report(result, say, idle=True)


def close_books_of_dead_flows(root: Path, say: Say) -> None:
    """End the runs that flows which were killed left open in Prefect and MLflow, where no flow that runs does it."""
    if not dead_flows(root):
        return
    from pipeline.tracking import Tracker

    connect(say)
    settle(root, say)
    Tracker(root).reap()


def _flow(options: argparse.Namespace, root: Path, say: Say) -> Ending:
    """Run the Prefect flow and print how it ended."""
    connect(say, meanwhile=partial(import_store, root))
    from flows.run import retrain

    where = {"slots": options.slots, "runner": options.runner, "ray_address": options.ray_address}
    state = retrain(root, options.only, options.force, **where, return_state=True)
    result = state.result(raise_on_failure=False)
    if isinstance(result, Result | ChorusError):
        # One that broke off, as on a full disk, may have left runs open: the next one sees to that.
        forget_flow(root, str(state.state_details.flow_run_id))
    if isinstance(result, ChorusError):  # the flow has entered it in the journal
        say(f"chorus: {result}")
        return Ending(status_of(result), redact(str(result)))
    if isinstance(result, Exception) and status_of(result) == NO_ROOM:
        raise result
    if not isinstance(result, Result):
        say(f"the flow ended as {state.name}: {state.message}")
        return Ending(1, f"the flow ended as {state.name}: {state.message}")
    print_summary(root, result.outcomes)
    return _report(result, say)


def _report(result: Result, say: Say, idle: bool = False) -> Ending:
    """Say what went wrong, if anything, and return how the run ended."""
    if result.stopped_by is not None or result.failed or result.given_up:
        say(f"\n{result.message}")
    if result.stopped_by is not None:
        return Ending(128 + result.stopped_by, result.message)
    return Ending(1 if result.failed else 0, result.message, idle=idle and not result.failed)


def say(line: str) -> None:
    print(redact(line), file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    """Run the command in the working folder and return its exit status."""
    options = parser().parse_args(argv)
    # Until the flow takes the signals over, SIGTERM unwinds like Ctrl-C.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if options.plan:
            show_plan(options, Path.cwd())
            return 0
        return retrained(options, Path.cwd(), say).status
    except ChorusError as error:
        say(f"chorus: {error}")
        return status_of(error)
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.excepthook = redacted_traceback
    sys.exit(main())
