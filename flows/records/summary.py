"""What a run leaves to read: the stages, the members and strategies with their distances, and the winner."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.stages.outcomes import FAILED, GIVEN_UP, SKIPPED, STOPPED, Outcome
from pipeline.files import read_record
from pipeline.report import certainty

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

COLOURS = {FAILED: "red", GIVEN_UP: "red", STOPPED: "yellow", SKIPPED: "yellow"}


def read_results(root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what `report/metrics.json` and `registration.json` hold; empty where a file is missing or damaged."""
    return read_record(root / "report" / "metrics.json"), read_record(root / "registration.json")


def stage_rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return the rows of the stages' table."""
    return [{"stage": o.stage, "what happened": o.what, "seconds": round(o.seconds, 1)} for o in outcomes]


def stage_table(outcomes: Sequence[Outcome]) -> "Table":
    """Return a terminal table: stage, what happened, seconds."""
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    table.add_column("stage")
    table.add_column("what happened")
    table.add_column("seconds", justify="right")
    for outcome in outcomes:
        seconds = f"{outcome.seconds:.1f}" if outcome.seconds else ""
        table.add_row(outcome.stage, outcome.what, seconds, style=COLOURS.get(outcome.what))
    return table


def arm_table(metrics: dict[str, Any]) -> "Table | None":
    """Return a terminal table of members and strategies with the judges' distances; `None` where nothing was judged."""
    arms, headline = metrics.get("arms") or [], metrics.get("headline") or []
    if not arms or not headline:
        return None
    from rich.table import Table

    title = f"distance to the {metrics.get('split', 'held-out')} split, lower is better"
    table = Table(box=None, header_style="bold", title=title, title_justify="left", title_style="italic")
    for name in ("", "name", "kind"):
        table.add_column(name)
    for name in (*headline, "cost"):
        table.add_column(name, justify="right")
    shipped = metrics.get("shipped") or {"kind": "strategy", "name": metrics.get("winner")}
    for arm in arms:
        won = all(arm.get(key) == shipped[key] for key in ("kind", "name"))
        values = arm.get("metrics") or {}
        cells = [_number(values.get(name)) for name in headline]
        row = ["→" if won else "", str(arm.get("name", "")), str(arm.get("kind", "")), *cells, _number(arm.get("cost"))]
        table.add_row(*row, style="bold green" if won else None)
    floor = metrics.get("floor") or {}
    if any(name in floor for name in headline):
        table.add_row("", "real images", "floor", *[_number(floor.get(name)) for name in headline], "", style="dim")
    return table


def closing_lines(root: Path, metrics: dict[str, Any], registration: dict[str, Any]) -> list[str]:
    """Return the winner, a student shipped in its place, how sure its difference to the best member is, the gate's
    verdict, the registered version and the report, if each is known.
    """
    lines = []
    if winner := registration.get("strategy") or metrics.get("winner"):
        lines.append(f"winner      {winner}")
    if (shipped := metrics.get("shipped") or {}).get("kind") == "student":
        lines.append(f"shipped     student {shipped['name']}")
    if shipped and metrics.get("intervals"):
        lines.append(f"certainty   {certainty.sentence(metrics)}")
    if told := gate_line(read_record(root / "report" / "gate.json")):
        lines.append(f"gate        {told}")
    if version := registration.get("version"):
        lines.append(f"registered  {registration.get('model', 'model')} version {version}")
    report = root / str(registration.get("report", "report/report.html"))
    if report.is_file():
        lines.append(f"report      {report}")
    return lines


def gate_line(verdict: dict[str, Any]) -> str | None:
    """Return the verdict, the rules that failed and the champion, of `report/gate.json`; None where that is empty."""
    if "passed" not in verdict:
        return None
    failed = [rule["name"] for rule in verdict["rules"] if rule["verdict"] == "failed"]
    champion = verdict["champion"]
    if champion is None:
        against = "there is no champion yet"
    elif champion["itself"]:
        against = f"it is the champion, version {champion['version']}"
    else:
        against = f"the champion is version {champion['version']}"
    return f"{'failed: ' + ', '.join(failed) if failed else 'passed'}; {against}"


def print_summary(root: Path, outcomes: Sequence[Outcome], console: "Console | None" = None) -> None:
    """Print the stages, and, where the last stage is up to date, the members, strategies, winner and report."""
    from rich.console import Console

    console = console or Console()
    console.print()
    console.print(stage_table(outcomes))
    if any(outcome.what in (FAILED, STOPPED, SKIPPED) for outcome in outcomes):
        return
    metrics, registration = read_results(root)
    if table := arm_table(metrics):
        console.print()
        console.print(table)
    if lines := closing_lines(root, metrics, registration):
        console.print()
        console.print("\n".join(lines), soft_wrap=True, markup=False, highlight=False)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else ""
