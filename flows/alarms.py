"""`python -m flows.alarms`: automations on the Prefect server that tell of a night that failed, and end a dead run.

Two are put there, or brought up to date: one calls a webhook when an unattended run fails, the other marks a run as
crashed when its heartbeats stop, as they do when its machine goes down. Exit status: 0 done, 2 bad input.
"""

import argparse
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from flows.service.server import HEARTBEAT, configured, connect
from pipeline.errors import ChorusError
from pipeline.params.redaction import redact, redacted_traceback

if TYPE_CHECKING:
    from prefect.automations import AutomationCore

FAILURE, SILENCE = "chorus: a run failed", "chorus: a run went silent"
BLOCK = "chorus-failure"  # the webhook's address on the server, where it is kept as a secret
UNATTENDED = ["nightly", "watch"]  # flows that nobody looks at; one started by hand tells its terminal
BAD = ("Failed", "Crashed", "TimedOut")
# Rendered by Prefect: https://docs.prefect.io/v3/automate/events/templates
PAYLOAD = """\
{"text": {{ ("Chorus: " ~ flow.name ~ " " ~ flow_run.name ~ " ended as " ~ flow_run.state.name) | tojson }},
 "message": {{ (flow_run.state.message or "") | tojson }},
 "flow_run": {{ (flow_run.id | string) | tojson }}}
"""


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m flows.alarms", description="Put automations on the Prefect server.")
    root.add_argument(
        "--webhook", metavar="URL", help="address that is POSTed to when a run failed (JSON, `text` first)"
    )
    root.add_argument(
        "--silent-after",
        metavar="SECONDS",
        type=int,
        default=3 * HEARTBEAT,
        help=f"a run silent for so long has crashed (default: {3 * HEARTBEAT}; a heartbeat comes every {HEARTBEAT})",
    )
    return root


def alarms(webhook: Any | None, silent_after: int) -> "list[AutomationCore]":
    """Return the automations; webhook: the id of the block with the address, None for no alarm."""
    from prefect.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.actions import CallWebhook, ChangeFlowRunState

    ends = {f"prefect.flow-run.{state}" for state in (*BAD, "Completed", "Cancelled")}
    beat = "prefect.flow-run.heartbeat"
    silence = AutomationCore(
        name=SILENCE,
        description="Marks a run as crashed whose heartbeats stopped; the next run goes on from its checkpoints.",
        trigger=EventTrigger(
            after={beat},
            expect={beat, *ends},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=_flows([*UNATTENDED, "retrain"]),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=silent_after),
        ),
        actions=[ChangeFlowRunState(state="CRASHED", message=f"no heartbeat for {silent_after} s")],
    )
    if webhook is None:
        return [silence]
    failure = AutomationCore(
        name=FAILURE,
        description="Calls the webhook when an unattended run fails.",
        trigger=EventTrigger(
            expect={f"prefect.flow-run.{state}" for state in BAD},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=_flows(UNATTENDED),
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[CallWebhook(block_document_id=webhook, payload=PAYLOAD)],
    )
    return [silence, failure]


def _flows(names: list[str]) -> dict[str, Any]:
    return {"prefect.resource.role": "flow", "prefect.resource.name": names}


def put(webhook: str | None, silent_after: int) -> list[str]:
    """Put the automations on the server, or bring those of the same names up to date; return their names."""
    from prefect.blocks.webhook import Webhook
    from prefect.client.orchestration import get_client

    block = None
    if webhook is not None:
        block = Webhook(method="POST", url=webhook, headers={"Content-Type": "application/json"}).save(
            BLOCK, overwrite=True
        )
    with get_client(sync_client=True) as client:
        wanted = alarms(block, silent_after)
        for automation in wanted:
            for known in client.read_automations_by_name(automation.name)[:1]:
                client.update_automation(known.id, automation)
                break
            else:
                client.create_automation(automation)
    return [automation.name for automation in wanted]


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = parser().parse_args(argv)
    try:
        if options.silent_after < 10:
            raise ChorusError(f"--silent-after {options.silent_after}: Prefect looks every 10 s at the earliest")
        if options.webhook is not None and not options.webhook.startswith(("http://", "https://")):
            raise ChorusError("--webhook: an address that begins with https:// or http:// is needed")
        if configured() is None:
            raise ChorusError("automations need a Prefect server that stays: set PREFECT_API_URL to its address")
        connect(say)
        for name in put(options.webhook, options.silent_after):
            print(f"alarms  {name}")
    except ChorusError as error:
        say(f"chorus: {error}")
        return 2
    return 0


def say(line: str) -> None:
    print(redact(line), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.excepthook = redacted_traceback
    sys.exit(main())
