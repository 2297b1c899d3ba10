"""`python -m flows.deploy`: serve this clone's pipeline, so that a schedule or a person elsewhere can start it.

It stays in the foreground, as service managers want it; every run is a process of its own.
Exit status: 0 stopped, 2 bad input.
"""

import argparse
import sys
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flows.planning.graph import require_checkout
from flows.records.journal import LOCAL
from flows.retrain import count, names, say
from flows.service.server import configured, connect
from flows.service.serving import serve
from flows.stages.runners import RUNNERS
from pipeline.errors import ChorusError
from pipeline.params.redaction import redacted_traceback
from pipeline.project import Project

KINDS = ("data", "upstream", "drift")  # of reasons to start before the time


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="python -m flows.deploy",
        description="Serve this clone's pipeline. `prefect deployment run nightly/NAME` starts it at once.",
    )
    root.add_argument("--name", default="chorus", help="of the deployment (default: chorus)")
    when = root.add_mutually_exclusive_group()
    when.add_argument("--cron", metavar="CRON", help="when to start by itself: '0 1 * * *' is every night at one")
    when.add_argument("--every", metavar="SECONDS", type=count, help="or how often")
    root.add_argument("--timezone", metavar="ZONE", default="UTC", help="of --cron: Europe/Berlin (default: UTC)")
    root.add_argument("--commit", action="store_true", help="let scheduled runs commit, as flows.retrain does")
    root.add_argument("--slots", metavar="N", type=count, help="stages at once of scheduled runs")
    root.add_argument("--runner", choices=RUNNERS, default=LOCAL, help="where their stages run (default: local)")
    root.add_argument("--ray-address", metavar="ADDRESS", help="of a running Ray cluster (default: RAY_ADDRESS)")
    root.add_argument(
        "--watch",
        metavar="WHAT[,WHAT]",
        type=names,
        default=(),
        help="start also for new data, newer commits upstream, or images that have drifted: data, upstream, drift",
    )
    root.add_argument(
        "--watch-every", metavar="MINUTES", type=count, default=15, help="how often to look (default: 15)"
    )
    return root


def schedule_of(options: argparse.Namespace) -> Any:
    """Return Prefect's schedule, None where nothing was said of one; raises `ChorusError` for one that cannot be."""
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

    if options.every:
        return IntervalSchedule(interval=options.every)
    if not options.cron:
        return None
    try:
        ZoneInfo(options.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        remedy = "write for instance Europe/Berlin"
        raise ChorusError(f"--timezone {options.timezone}: there is none of this name; {remedy}") from None
    try:
        return CronSchedule(cron=options.cron, timezone=options.timezone)
    except ValueError:
        remedy = "minute, hour, day, month and weekday are wanted, as in '0 1 * * *'"
        raise ChorusError(f"--cron '{options.cron}': {remedy}") from None


def deployments(options: argparse.Namespace) -> list[Any]:
    """Return what is served, as Prefect's deployments."""
    from prefect.deployments.runner import EntrypointType

    from flows.nightly import nightly
    from flows.watch import watch

    schedule = schedule_of(options)
    served = [
        nightly.to_deployment(
            options.name,
            schedules=[schedule] if schedule else None,
            parameters={name: getattr(options, name) for name in ("commit", "slots", "runner", "ray_address")},
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
    ]
    if options.watch:
        watched = {kind: kind in options.watch for kind in KINDS}
        served.append(
            watch.to_deployment(
                options.name,
                interval=60 * options.watch_every,
                parameters={"deployment": f"{nightly.name}/{options.name}", **watched},
                entrypoint_type=EntrypointType.MODULE_PATH,
            )
        )
    return served


def deploy(options: argparse.Namespace, root: Path) -> None:
    """Serve until a signal ends it; what runs then is ended too, in good order."""
    Project.load(root)
    require_checkout(root)
    server = configured()
    schedule_of(options)
    if unknown := [kind for kind in options.watch if kind not in KINDS]:
        raise ChorusError(f"--watch {unknown[0]}: there are {', '.join(KINDS)}")
    if server is None:
        raise ChorusError(
            "a schedule needs a Prefect server that stays: start one (`prefect server start`) and set "
            "PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    connect(say)
    served = deployments(options)
    for deployment in served:
        say(f"serving {deployment.flow_name}/{deployment.name} of {root}")
    serve(served, say)


def main(argv: list[str] | None = None) -> int:
    """Run the command in the working folder and return its exit status."""
    options = parser().parse_args(argv)
    try:
        deploy(options, Path.cwd())
    except ChorusError as error:
        say(f"chorus: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.excepthook = redacted_traceback
    sys.exit(main())
