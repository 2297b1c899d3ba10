"""One command a stage: `python -m pipeline train dcgan`. Nothing heavy is imported before it is needed."""

import argparse
import importlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ChorusError

if TYPE_CHECKING:
    from pipeline.project import Project

STAGES = {
    "ingest": "read the named source into data/raw",
    "prepare": "decode, check, resize and split into data/prepared",
    "reference": "train the extractors and featurise the real images",
    "train": "train one family's members",
    "rank": "decide which families go on to a rung of the race",
    "advance": "train one family on in a later rung",
    "evaluate": "sample and measure one family's candidates",
    "fuse": "try every fusion strategy and keep the best",
    "distill": "train one student on images of the fused sampler, and its control on real ones",
    "evaluate-student": "sample and measure one student and its control",
    "choose": "choose what is shipped, the fused sampler or a student",
    "judge": "score members and strategies on the gate split",
    "gate": "measure the chosen model against the champion, by the rules of the gate",
    "register": "write the report and register the chosen model",
}
OF_A_FAMILY = ("train", "advance", "evaluate")
OF_A_STUDENT = ("distill", "evaluate-student")
OF_A_RUNG = ("rank", "advance", "evaluate")


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m pipeline", description="The stages that dvc.yaml describes.")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, what in STAGES.items():
        command = commands.add_parser(name, help=what, description=what)
        if name in OF_A_FAMILY:
            command.add_argument("family", help="a name under `families` in params.yaml")
        if name in OF_A_STUDENT:
            command.add_argument("student", help="a name under `students` in params.yaml")
        if name in OF_A_RUNG:
            first = name == "evaluate"
            command.add_argument("--rung", type=int, default=1 if first else None, required=not first, metavar="N")
        if name == "judge":
            command.add_argument("--split", choices=["gate", "test"], default="gate", help="(default: gate)")
            command.add_argument("--by", metavar="NAME", help="who opens the test split")
            command.add_argument("--why", metavar="TEXT", help="the reason, in one line")
    pin = commands.add_parser("pin", help="settle in params.yaml which weights the families' warm starts are")
    pin.add_argument("--refresh", action="store_true", help="also those of members and files that are settled already")
    commands.add_parser("check", help="validate params.yaml and print nothing else than what is wrong")
    give_up = commands.add_parser("give-up", help="record that a family could not be trained, so that others go on")
    give_up.add_argument("family", help="a name under `families` in params.yaml")
    give_up.add_argument("--rung", type=int, default=1, metavar="N", help="(default: 1)")
    give_up.add_argument("--why", metavar="TEXT", required=True, help="the reason, in one line")
    verify = commands.add_parser(
        "verify",
        help="check that the registry holds the chosen model, and that the gate compared with today's champion",
    )
    verify.add_argument("--on-cue", action="store_true", help="import all, then check once a line comes on stdin")
    commands.add_parser("drift", help="say how far the folder's new images are from those that were trained on")
    export = commands.add_parser("export", help="write a generator as ONNX or in half precision")
    export.add_argument("--what", default="chosen", help="`chosen`, or the id of a candidate (default: chosen)")
    export.add_argument("--format", choices=["onnx", "int8", "fp16"], required=True)
    export.add_argument("--out", type=Path, required=True, help="file; for fp16 a folder")
    score = commands.add_parser(
        "score", help="say of images how real they look to the members' discriminators together"
    )
    score.add_argument("images", type=Path, help="folder; sub-folders are looked through too")
    score.add_argument("--out", type=Path, help="CSV file (default: the standard output)")
    sample = commands.add_parser("sample", help="write images of a model into a folder; an interrupted one goes on")
    sample.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help="models:/NAME@ALIAS, models:/NAME/VERSION, a version's folder, or models/chosen",
    )
    sample.add_argument("--n", type=count, required=True, metavar="N", help="how many images")
    sample.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder; more of the same draw is added")
    sample.add_argument("--seed", type=int, default=0, metavar="SEED", help="(default: 0)")
    sample.add_argument("--label", type=label, default=-1, metavar="CLASS", help="number of a class (default: -1, any)")
    where = commands.add_parser("where", help="print where something is kept")
    where.add_argument("what", choices=["tracking"])
    return root


def count(text: str) -> int:
    number = int(text)
    if not 0 < number <= 10**8:
        raise argparse.ArgumentTypeError("it has to be from 1 to 100,000,000")
    return number


def label(text: str) -> int:
    number = int(text)
    if not -1 <= number < 2**63:
        raise argparse.ArgumentTypeError("it has to be the number of a class, or -1 for any")
    return number


def dispatch(arguments: argparse.Namespace) -> None:
    """Run one command; heavy imports happen here, one command's only."""
    from pipeline.exclusive import stage_alone
    from pipeline.peak import leave_peak
    from pipeline.project import Project

    if arguments.command == "where":
        from pipeline.tracking import tracking_uri

        print(tracking_uri())
        return
    if arguments.command == "sample":
        from pipeline.stages import sample

        sample.run(Path.cwd(), arguments.model, arguments.n, arguments.out, arguments.seed, arguments.label)
        return
    if arguments.command == "verify" and arguments.on_cue:
        from pipeline.stages import verify

        if not verify.cued(Path.cwd()):
            return
    project = Project.load()
    if arguments.command == "check":
        from pipeline.params import missing_sections

        if missing := missing_sections(project.root / "params.yaml"):
            raise ChorusError(
                f"params.yaml: {', '.join(missing)}: missing, and DVC knows no defaults; README.md has them"
            )
        return
    if arguments.command == "pin":
        from pipeline.stages import pin

        pin.run(project, arguments.refresh)
        return
    if arguments.command == "verify":
        from pipeline.stages import verify

        verify.run(project)
        return
    if arguments.command == "drift":
        from pipeline.stages import drift

        drift.run(project)
        return
    if arguments.command == "export":
        from pipeline.stages.export import run

        run(project, arguments.what, arguments.format, arguments.out)
        return
    if arguments.command == "score":
        from pipeline.stages import score

        score.run(project, arguments.images, arguments.out)
        return
    if arguments.command == "judge" and (arguments.split == "test" or arguments.by or arguments.why):
        open_test(project, arguments)
        return
    family = [arguments.family] if arguments.command in (*OF_A_FAMILY, "give-up") else []
    if not set(family) <= set(project.params.families):
        known = ", ".join(project.params.families)
        raise ChorusError(f"params.yaml has no family '{arguments.family}'; it has: {known}")
    student = [arguments.student] if arguments.command in OF_A_STUDENT else []
    if not set(student) <= set(project.params.students):
        known = ", ".join(project.params.students) or "none; add one to `students`"
        raise ChorusError(f"params.yaml has no student '{arguments.student}'; it has: {known}")
    rung = [arguments.rung] if arguments.command in OF_A_RUNG else []
    rungs = project.rungs if arguments.command == "evaluate" else project.rungs[1:]
    if not set(rung) <= set(rungs):
        known = ", ".join(map(str, rungs)) or "none; set racing.rungs"
        raise ChorusError(f"there is no rung {arguments.rung} to {arguments.command}; params.yaml has: {known}")
    if arguments.command == "give-up":
        from pipeline.stages import give_up

        give_up.run(project, arguments.family, arguments.rung, arguments.why)
        return
    with stage_alone(project.root, stage_name(arguments), project.params.flow.busy):
        stage = importlib.import_module(f"pipeline.stages.{arguments.command.replace('-', '_')}")
        stage.run(project, *family, *student, *rung)
        leave_peak(project.root, stage_name(arguments))


def stage_name(arguments: argparse.Namespace) -> str:
    """Return what `dvc.yaml` calls the stage that a command carries out."""
    command = arguments.command
    if command in OF_A_STUDENT:
        return f"{command}@{arguments.student}"
    if command not in OF_A_RUNG or (command == "evaluate" and arguments.rung == 1):
        return f"{command}@{arguments.family}" if command in OF_A_FAMILY else str(command)
    later = f"later{arguments.rung - 2}"  # DVC counts the later rungs from 0
    name = "evaluate-later" if command == "evaluate" else command
    return f"{name}@{later}-{arguments.family}" if command in OF_A_FAMILY else f"{name}@{later}"


def open_test(project: "Project", arguments: argparse.Namespace) -> None:
    """Open the test split for whoever signs for it."""
    if arguments.split != "test" or not arguments.by or not arguments.why:
        raise ChorusError(
            "--split test, --by NAME and --why TEXT go together: the test split opens for a signed reason"
        )
    from pipeline.stages import opening

    opening.run(project, arguments.by, arguments.why)


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0, 2 for bad input, 74 where there is no room to write, 75 for what can pass (a network
    or server that is away, memory that others hold), 130 after an interrupt, 143 after SIGTERM.
    """
    arguments = parser().parse_args(argv)
    # SIGTERM unwinds like Ctrl-C, so that temporary files go and runs are closed; training handles it itself.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        dispatch(arguments)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return explained(error)
    return 0


def explained(error: Exception) -> int:
    """Print an error as its kind deserves and return the exit status; raises it again where it is an unexpected one."""
    from pipeline import exits
    from pipeline.params.redaction import redact

    status = exits.status_of(error)
    if isinstance(error, ChorusError):
        print(f"chorus: {redact(str(error))}", file=sys.stderr)
    elif status == exits.NO_ROOM:
        print(f"chorus: {redact(exits.no_room(error))}", file=sys.stderr)
    elif status == exits.CAN_PASS:
        redacted_traceback(type(error), error, error.__traceback__)
        print(f"chorus: this can pass: {redact(str(error)) or type(error).__name__}", file=sys.stderr)
    else:
        raise error
    return status


def redacted_traceback(*error: Any) -> None:
    """To be `sys.excepthook`; imported when it is needed, for it brings all of params.yaml's models along."""
    from pipeline.params import redaction

    redaction.redacted_traceback(*error)


if __name__ == "__main__":
    sys.excepthook = redacted_traceback
    sys.exit(main())
