"""`python -m flows.status`: the last runs of this checkout, how they ended, what stages cost and why some did not run.

It reads the journal alone, so it answers at once, with or without a Prefect server. Exit status: 0, or 2 in a folder
that is no checkout.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.planning.graph import require_checkout
from flows.records import journal
from flows.records.journal import COMPLETED, IDLE, KILLED, REFUSED, RUNNING, Entry
from flows.records.logs import last_progress
from flows.stages.outcomes import FAILED, GIVEN_UP, RAN, SKIPPED, STOPPED
from pipeline.errors import ChorusError
from pipeline.params.redaction import redacted_traceback

SCHEMA = 1
WIDEST = 2000  # columns of a line where nobody looks at a terminal: pipes get whole lines
COLOURS = {
    FAILED: "red",
    KILLED: "red",
    REFUSED: "red",
    GIVEN_UP: "yellow",
    STOPPED: "yellow",
    SKIPPED: "yellow",
    COMPLETED: "green",
}


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m flows.status", description="Show the last runs of this checkout.")
    root.add_argument("--last", metavar="N", type=_count, default=10, help="how many runs (default: 10)")
    root.add_argument("--json", action="store_true", help="print one JSON document")
    return root


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least one run is needed")
    return number


def last_runs(root: Path, count: int) -> list[Entry]:
    """Return the runs that go on and those that ended last, the newest first."""
    open_runs = {entry.id: entry for entry in journal.running(root)}
    ended = [entry for entry in journal.read(root) if entry.id not in open_runs]
    return sorted((*ended, *open_runs.values()), key=lambda entry: entry.started, reverse=True)[:count]


def costs(runs: Sequence[Entry]) -> dict[str, dict[str, float]]:
    """Return for each stage that computed in some of these runs: how often, mean and total seconds in its slot."""
    spent: dict[str, list[float]] = {}
    for entry in reversed(runs):
        for stage in entry.stages:
            if stage.what in (RAN, FAILED, GIVEN_UP, STOPPED):
                spent.setdefault(stage.stage, []).append(stage.seconds)
    return {
        name: {"times": len(seconds), "mean_seconds": round(fmean(seconds), 3), "total_seconds": round(sum(seconds), 3)}
        for name, seconds in spent.items()
    }


def document(root: Path, runs: Sequence[Entry]) -> dict[str, Any]:
    """Return what `--json` prints; `working` is how far the stages are that runs work on now."""
    told = [entry.model_dump(mode="json") | {"seconds": round(entry.seconds, 3)} for entry in runs]
    working = {
        stage: [asdict(part) for part in parts]
        for entry in runs
        if entry.state == RUNNING
        for stage, parts in last_progress(root, entry.id).items()
    }
    return {"schema": SCHEMA, "runs": told, "working": working, "costs": costs(runs)}


def runs_table(runs: Sequence[Entry]) -> Table:
    """Return a terminal table of runs; times are local."""
    table = _table("runs, the newest first", "started", "state", "took", "by", "stages", "message")
    for entry in runs:
        counted = Counter(stage.what for stage in entry.stages)
        stages = ", ".join(f"{count} {what}" for what, count in counted.items())
        by = entry.trigger if entry.driver == journal.LOCAL else f"{entry.trigger} ({entry.driver})"
        started = f"{entry.started.astimezone():%Y-%m-%d %H:%M:%S}"
        cells = (started, entry.state, duration(entry.seconds), by, stages, _trouble(entry))
        table.add_row(*cells, style=COLOURS.get(entry.state))
    for column in table.columns[:4]:
        column.no_wrap = True
    return table


def stages_table(entry: Entry, spent: dict[str, dict[str, float]]) -> Table:
    """Return a terminal table of one run's stages: what happened, why, and what each cost, here and on average."""
    title = f"stages of the run of {entry.started.astimezone():%Y-%m-%d %H:%M:%S} ({entry.state})"
    table = _table(title, "stage", "what happened", "seconds", "mean", "total", "attempts", "why")
    for column in table.columns[2:6]:
        column.justify = "right"
    for stage in entry.stages:
        cost = spent.get(stage.stage, {})
        shown = [f"{cost[name]:.1f}" if cost else "" for name in ("mean_seconds", "total_seconds")]
        seconds = f"{stage.seconds:.1f}" if stage.seconds else ""
        attempts = str(stage.attempts) if stage.attempts > 1 else ""
        table.add_row(stage.stage, stage.what, seconds, *shown, attempts, stage.why, style=COLOURS.get(stage.what))
    total = sum(stage.seconds for stage in entry.stages)
    table.add_row("all", "", f"{total:.1f}", "", f"{sum(c['total_seconds'] for c in spent.values()):.1f}", style="dim")
    return table


def duration(seconds: float) -> str:
    """Return seconds as h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))


def print_status(root: Path, runs: Sequence[Entry], console: Console) -> None:
    """Print the runs, what one that goes on works on, and the stages of the newest that had something to do."""
    if not runs:
        console.print("no run has ended or goes on here; `python -m flows.retrain` starts one")
        return
    console.print(runs_table(runs))
    for entry in runs:
        for stage, parts in last_progress(root, entry.id).items() if entry.state == RUNNING else ():
            says = "; ".join(f"{part.what}: {part.summary}" for part in parts[-1:])
            console.print(f"\n{stage} is worked on{': ' + says if says else ''}")
    if shown := next((entry for entry in runs if entry.stages and entry.state != IDLE), None):
        console.print()
        console.print(stages_table(shown, costs(runs)))


def _trouble(entry: Entry) -> str:
    """What went wrong in a run, in one line: the stages that failed or were given up and why, or its own message."""
    failed = [f"{stage.stage}: {stage.why}" for stage in entry.stages if stage.what in (FAILED, GIVEN_UP)]
    return "; ".join(failed) or (entry.message.splitlines() or [""])[0]


def _table(title: str, *columns: str) -> Table:
    table = Table(box=None, header_style="bold", title=title, title_justify="left", title_style="italic")
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def main(argv: list[str] | None = None) -> int:
    """Run the command in the working folder and return its exit status."""
    options = parser().parse_args(argv)
    root = Path.cwd()
    try:
        require_checkout(root)
    except ChorusError as error:
        print(f"chorus: {error}", file=sys.stderr)
        return 2
    runs = last_runs(root, options.last)
    if options.json:
        print(json.dumps(document(root, runs), indent=2, ensure_ascii=False))
    else:
        print_status(root, runs, Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else WIDEST))
    return 0


if __name__ == "__main__":
    sys.excepthook = redacted_traceback
    sys.exit(main())
