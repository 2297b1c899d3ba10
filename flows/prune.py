"""`python -m flows.prune`: remove what nobody needs any more, by the rule of `flow.keep_days`; `--dry-run` lists it.

Exit status: 0 done, 2 bad input, or another run is at work in the checkout.
"""

import argparse
import sys
from pathlib import Path

from flows.checkout.exclusive import alone
from flows.planning.graph import require_checkout
from pipeline.errors import ChorusError
from pipeline.params.redaction import redact, redacted_traceback
from pipeline.project import Project


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="python -m flows.prune",
        description="Remove old checkpoints, experiments, objects of DVC's cache and MLflow runs, but nothing that the "
        "registry refers to.",
    )
    root.add_argument("--dry-run", action="store_true", help="say what would be removed; remove nothing")
    root.add_argument("--days", type=float, metavar="N", help="in place of flow.keep_days")
    return root


def command(options: argparse.Namespace, root: Path) -> None:
    """Prune the checkout at `root`; raises `ChorusError` where it is none, or a run is at work in it."""
    require_checkout(root)
    project = Project.load(root)
    days = project.params.flow.keep_days if options.days is None else options.days
    if days < 0:
        raise ChorusError(f"--days {days:g}: it has to be 0 or more")
    with alone(root, project.params.flow.busy, say):
        prune(project, days, dry=options.dry_run)


def prune(project: Project, days: float, *, dry: bool) -> None:
    """Remove, or with `dry` only list, what the rule names.

    Whatever can stop that (a worktree that cannot be read, a registry that is away) comes before the first removal.
    """
    from flows.checkout import pruning
    from flows.records.old_runs import all_versions, old_runs, remove_runs
    from pipeline.tracking import Tracker

    tracker = Tracker(project.root)
    versions = all_versions(tracker)
    runs = old_runs(tracker, versions, days)
    commits = pruning.commits_of_versions(project.root, versions)
    experiments = pruning.old_experiments(project.root, days)
    used = pruning.used_objects(project.root, commits, without=experiments)
    folders = pruning.old_checkpoints(project.root, project.params, days)

    verb = "would remove" if dry else "removes"
    for folder in [*folders, *experiments]:
        print(f"{verb} {folder.relative_to(project.root)}")
    for run in runs:
        print(f"{verb} MLflow run {run.info.run_id} ({run.info.run_name})")
    if not dry:
        pruning.remove_folders(folders)
        pruning.remove_experiments(project.root, experiments)
        remove_runs(tracker, runs, say)
    count = pruning.collect_cache(project.root, used, days, dry=dry)
    kept = f"kept are younger ones and those of the checkout and of {len(commits)} commits"
    print(f"{verb} {count} objects of DVC's cache; {kept}")


def say(line: str) -> None:
    print(redact(line), file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    """Run the command in the working folder and return its exit status."""
    options = parser().parse_args(argv)
    try:
        command(options, Path.cwd())
    except ChorusError as error:
        say(f"chorus: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.excepthook = redacted_traceback
    sys.exit(main())
