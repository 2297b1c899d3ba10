"""`python -m flows.retrain`: bring everything up to date, from the images to the registered model.

Exit status: 0 done, 1 a stage or the check of the registry failed, 2 bad input, 128 + the signal that stopped it.
"""

import argparse
import signal
import sys
from pathlib import Path

from flows.exclusive import alone
from flows.execution import CLEAN, Outcome, Result, stage_environment, verify
from flows.git import commit_lock
from flows.graph import read_graph
from flows.journal import COMPLETED, IDLE, LOCAL, enter_refused, keeping
from flows.pins import commit_pins, settle_warm_starts
from flows.plan import LEAVE, plan, render
from flows.process import Processes, stopping_on_signals
from flows.reaping import dead_flows, forget_flow, reap, settle
from flows.reasons import state_of
from flows.runners import RUNNERS
from flows.server import connect
from flows.summary import print_summary, read_results
from pipeline.errors import ChorusError
from pipeline.params.redaction import redact
from pipeline.project import Project


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m flows.retrain", description="Run the stages that have work to do.")
    root.add_argument("--plan", action="store_true", help="print what would run and why; run nothing")
    root.add_argument(
        "--only",
        metavar="STAGE[,STAGE]",
        type=lambda text: tuple(name.strip() for name in text.split(",") if name.strip()),
        default=(),
        help="these stages and nothing else; `train` stands for every train@FAMILY",
    )
    root.add_argument("--force", action="store_true", help="run stages although nothing has changed")
    root.add_argument("--commit", action="store_true", help="commit new pins of warm starts, and at the end dvc.lock")
    root.add_argument("--slots", metavar="N", type=_count, help="stages at once (default: GPUs, or cores ÷ threads)")
    root.add_argument("--runner", choices=RUNNERS, default=LOCAL, help="where stages run (default: local)")
    root.add_argument("--ray-address", metavar="ADDRESS", help="of a running Ray cluster (default: RAY_ADDRESS)")
    return root


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least one slot is needed")
    return number


def command(options: argparse.Namespace, root: Path) -> int:
    """Carry out the command in the checkout at `root`; raises `ChorusError` for bad input."""
    project = Project.load(root)
    if options.plan:
        graph = read_graph(root)
        print(render(plan(graph, graph.select(options.only), force=options.force)))
        return 0
    with alone(project.root, project.params.flow.busy, say):
        return _run(options, project)


def _run(options: argparse.Namespace, project: Project) -> int:
    root = project.root
    reap(root, say)
    project = settle_warm_starts(project, say)
    if options.commit and (committed := commit_pins(root)):
        say(committed)
    graph = read_graph(root)
    selected = graph.select(options.only)
    steps = plan(graph, selected, force=options.force)
    idle = all(step.what == LEAVE for step in steps)
    status = _nothing_to_do(project, selected) if idle else _flow(options, root)
    if status == 0 and options.commit:
        say(commit_lock(root, *read_results(root)))
    return status


def _nothing_to_do(project: Project, selected: tuple[str, ...]) -> int:
    """Check the registry alone: neither Prefect nor MLflow has a run to record."""
    say("nothing to do: all stages are up to date")
    close_books_of_dead_flows(project.root)
    outcomes = [Outcome(stage, CLEAN) for stage in selected]
    processes = Processes()
    with keeping(project.root) as book:
        if "register" in selected:
            with stopping_on_signals(processes, say):
                outcomes.append(verify(processes, project.root, stage_environment(project.params.compute.threads), say))
        result = Result(tuple(outcomes), processes.stopped_by)
        state = state_of(result)
        book.end(*((IDLE,) if state == COMPLETED else (state, result.message)))
    print_summary(project.root, outcomes)
    return _report(result)


def close_books_of_dead_flows(root: Path) -> None:
    """End the runs that flows which were killed left open in Prefect and MLflow, where no flow that runs does it."""
    if not dead_flows(root):
        return
    from pipeline.tracking import Tracker

    Tracker(root).reap()
    connect(say)
    settle(root, say)


def _flow(options: argparse.Namespace, root: Path) -> int:
    """Run the Prefect flow and print how it ended."""
    connect(say)
    from flows.run import retrain

    where = {"slots": options.slots, "runner": options.runner, "ray_address": options.ray_address}
    state = retrain(root, options.only, options.force, **where, return_state=True)
    forget_flow(root, str(state.state_details.flow_run_id))
    result = state.result(raise_on_failure=False)
    if isinstance(result, ChorusError):  # the flow has entered it in the journal
        say(f"chorus: {result}")
        return 2
    if not isinstance(result, Result):
        say(f"the flow ended as {state.name}: {state.message}")
        return 1
    print_summary(root, result.outcomes)
    return _report(result)


def _report(result: Result) -> int:
    """Say what went wrong, if anything, and return the exit status."""
    if result.stopped_by is not None or result.failed:
        say(f"\n{result.message}")
    if result.stopped_by is not None:
        return 128 + result.stopped_by
    return 1 if result.failed else 0


def say(line: str) -> None:
    print(redact(line), file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    """Run the command in the working folder and return its exit status."""
    options = parser().parse_args(argv)
    # Until the flow takes the signals over, SIGTERM unwinds like Ctrl-C.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return command(options, Path.cwd())
    except ChorusError as error:
        say(f"chorus: {error}")
        if not options.plan:
            enter_refused(Path.cwd(), str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
