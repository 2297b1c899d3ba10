"""`python -m flows.review`: look at the registered versions, and decide which one users load.

Exit status: 0 done, 2 refused (nothing was changed), 75 the registry did not answer (look with `show champion` how far
a move has come, and try again), 130 interrupted.
"""

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline import moves, registry
from pipeline.errors import ChorusError, PassingError
from pipeline.exits import BAD_INPUT, CAN_PASS, status_of
from pipeline.params.redaction import redact, redacted_traceback
from pipeline.project import Project
from pipeline.signed import moment
from pipeline.tracking import Tracker

JUDGED = "gate."  # tags: what the judges measured
NO_GATE = "–"


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m flows.review", description="Decide which version users load.")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    every = argparse.ArgumentParser(add_help=False)
    every.add_argument("--json", action="store_true", help="print JSON, for scripts")
    signed = argparse.ArgumentParser(add_help=False)
    signed.add_argument("--by", required=True, metavar="NAME", help="who decides")
    signed.add_argument("--why", required=True, metavar="TEXT", help="the reason, in one line")

    def add(name: str, what: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=what, description=what, parents=[*parents, every])

    add("list", "print all versions")
    shown = add("show", "print what is known of a version")
    promoted = add("promote", "make a version the champion", signed)
    add("rollback", "make the previous champion the champion again", signed)
    for command in (shown, promoted):
        command.add_argument("version", metavar="VERSION", help="its number, or an alias such as candidate")
    return root


def command(options: argparse.Namespace, root: Path) -> str:
    """Carry out a command in the project at `root`; return what to print on the standard output."""
    project = Project.load(root)
    model, tracker = project.params.register_.model, Tracker(root)
    if options.command == "list":
        rows = known(tracker, model)
        return _json(rows) if options.json else _printed(list_table(rows, model))
    if options.command == "show":
        number = numbered(tracker, model, options.version)
        registry.tags_of(tracker, model, number)
        row = next(row for row in known(tracker, model) if row["version"] == number)
        return _json(row) if options.json else _printed(*show_tables(row, model))
    if options.command == "promote":
        number = numbered(tracker, model, options.version)
        made = moves.promote(tracker, model, number, by=options.by, why=options.why)
    else:
        made = moves.rollback(tracker, model, by=options.by, why=options.why)
    return _json(asdict(made)) if options.json else told(made, model)


def numbered(tracker: Tracker, model: str, version: str) -> str:
    """Return the number of a version that is named by number or alias; raises `ChorusError` for an unknown alias."""
    if version.isdecimal():
        return str(int(version))
    number = registry.alias_number(tracker, model, version)
    if number is None:
        there = ", ".join(registry.aliases(tracker, model)) or "none"
        raise ChorusError(f"'{model}' has no alias '{version}'; it has: {there}")
    return number


def known(tracker: Tracker, model: str) -> list[dict[str, Any]]:
    """Return what the registry tells of each version, the newest first."""
    aliases = registry.aliases(tracker, model)
    return [_known(version, aliases) for version in registry.versions(tracker, model)]


def _known(version: Any, aliases: dict[str, str]) -> dict[str, Any]:
    tags = dict(version.tags)
    rules = f"{moves.GATE}."
    return {
        "version": str(version.version),
        "aliases": sorted(alias for alias, number in aliases.items() if number == str(version.version)),
        "registered": moment(version.creation_timestamp / 1000),
        "shipped": tags.get("chorus.shipped"),
        "gate": tags.get(moves.GATE),
        "rules": {name.removeprefix(rules): text for name, text in sorted(tags.items()) if name.startswith(rules)},
        "distances": dict(_distances(tags)),
        "moves": [asdict(move) for move in moves.moves_of(tags)],
        "made from": {
            name: tags[f"chorus.{name}"] for name in ("commit", "dirty", "data", "content") if f"chorus.{name}" in tags
        },
        "run": version.run_id,
        "description": version.description or "",
    }


def _distances(tags: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    """Yield what the judges measured, by metric; a tag that somebody has made no number is left out."""
    for name, value in tags.items():
        if name.startswith(JUDGED) and not name.endswith(".best_member"):
            with suppress(ValueError):
                yield name.removeprefix(JUDGED), float(value)


def list_table(rows: list[dict[str, Any]], model: str) -> Table:
    """Return the versions as a terminal table; the champion's row is bold."""
    distances = sorted({name for row in rows for name in row["distances"]})
    title = f"{model}: {len(rows)} version{'s' * (len(rows) != 1)}; distances to the gate images, lower is better"
    table = Table(box=None, header_style="bold", title=title, title_justify="left", title_style="italic")
    for name in ("version", "aliases", "registered (UTC)", "shipped", "gate"):
        table.add_column(name)
    for name in distances:
        table.add_column(name, justify="right")
    for row in rows:
        values = [f"{row['distances'][name]:.4g}" if name in row["distances"] else "" for name in distances]
        cells = [
            row["version"],
            ", ".join(row["aliases"]),
            row["registered"],
            row["shipped"] or "",
            row["gate"] or NO_GATE,
        ]
        table.add_row(*cells, *values, style="bold" if registry.CHAMPION in row["aliases"] else None)
    return table


def show_tables(row: dict[str, Any], model: str) -> list[Table]:
    """Return what is known of a version as terminal tables: the facts, the gate's rules, the moves."""
    facts = Table(box=None, show_header=False, title=f"{model} version {row['version']}", title_justify="left")
    told = {name: row[name] for name in ("aliases", "registered", "shipped", "gate")} | row["distances"]
    # The description is a whole model card, which MLflow shows better.
    told |= row["made from"] | {"run": row["run"]}
    for name, value in told.items():
        facts.add_row(
            name, ", ".join(value) if isinstance(value, list) else str(value if value is not None else NO_GATE)
        )
    rules = Table(box=None, header_style="bold", title="gate", title_justify="left")
    for name in ("rule", "verdict"):
        rules.add_column(name)
    for name, text in row["rules"].items():
        rules.add_row(name, text, style="red" if text.startswith("failed") else None)
    moved = Table(box=None, header_style="bold", title="moves", title_justify="left")
    for name in ("when (UTC)", "move", "from", "to", "by", "why", "gate"):
        moved.add_column(name)
    for move in row["moves"]:
        cells = [move[name] for name in ("when", "move", "before", "after", "by", "why", "gate")]
        moved.add_row(*(cell or NO_GATE for cell in cells))
    return [facts, *[table for table in (rules, moved) if table.row_count]]


def told(made: moves.Move, model: str) -> str:
    """Say what a move has done."""
    before = f"before it was version {made.before}" if made.before else "there was none before"
    lines = [f"{model} version {made.after} is the champion now; {before}"]
    if made.gate != "passed":
        lines.append(f"its gate: {made.gate}; python -m flows.review show {made.after} tells why")
    return "\n".join(lines)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _printed(*tables: Table) -> str:
    """Return tables as text, as wide as they need where nobody looks at them on a terminal."""
    width = None if sys.stdout.isatty() else 400
    # Names and reasons are people's own text: brackets in them are no markup.
    console = Console(width=width, markup=False, highlight=False)
    with console.capture() as capture:
        for place, table in enumerate(tables):
            console.print(*[""] * bool(place), table, sep="\n")
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())


def _refused(why: str, status: int) -> int:
    print(f"chorus: {redact(why)}", file=sys.stderr)
    return status


def main(argv: list[str] | None = None) -> int:
    """Run the command in the working folder and return its exit status."""
    options = parser().parse_args(argv)
    from mlflow.exceptions import MlflowException

    # SIGTERM unwinds like Ctrl-C, so that a move that was begun gives its lock back.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        print(command(options, Path.cwd()))
    except PassingError as error:
        return _refused(str(error), CAN_PASS)
    except ChorusError as error:
        return _refused(str(error), BAD_INPUT)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # of the clients of databases, servers and stores: whoever did not answer
        if status_of(error) == CAN_PASS:
            return _refused(f"the registry does not answer: {error}; {moves.UNCHANGED}: try again", CAN_PASS)
        if isinstance(error, MlflowException):
            return _refused(f"the registry refuses: {error}; {moves.UNCHANGED}", BAD_INPUT)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


if __name__ == "__main__":
    sys.excepthook = redacted_traceback
    sys.exit(main())
