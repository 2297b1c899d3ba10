"""The Prefect server that a run reports to: the one of `PREFECT_API_URL`, or a temporary one."""

import contextvars
import importlib
import os
import signal
import threading
from collections.abc import Callable

from pipeline.errors import ChorusError

HEARTBEAT = 30  # seconds between the heartbeats of a flow run, by which a server tells that it lives
# Set before Prefect is imported, and only where the user has not decided otherwise.
DEFAULTS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # 9 to 13 s on two idle cores
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLIENT_MAX_RETRIES": "8",  # with doubling waits: a server may be away for about eight minutes
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT),
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": "%(asctime)s | %(message)s",
    "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": "%(asctime)s | %(task_run_name)s | %(message)s",
}


def configured() -> str | None:
    """Return the address of the server that Prefect's settings name, None where a temporary one would be started.

    What imports Prefect has to call this first: the settings are read then.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    from prefect.settings import PREFECT_API_URL

    return PREFECT_API_URL.value() or None


def connect(say: Callable[[str], None], meanwhile: Callable[[], None] = lambda: None) -> None:
    """Reach the configured server, or start a temporary one; raises `ChorusError` where neither answers.

    meanwhile: what can be done while that server starts, in a process of its own.
    """
    address = configured()
    from prefect.client.orchestration import get_client

    say(f"connecting to Prefect at {address}" if address else "starting Prefect's temporary server (about 10 s) …")
    problems: list[BaseException | None] = []

    def reach() -> None:
        # The temporary server inherits this: Ctrl-C must reach the flow alone, which has its end yet to report.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        try:
            with get_client(sync_client=True) as client:
                problems.append(client.api_healthcheck())
        except Exception as error:
            problems.append(error)

    if not address:
        # The thread needs it too, and two threads must not import packages that share others at the same time.
        importlib.import_module("prefect.server.api.server")
    thread = threading.Thread(target=contextvars.copy_context().run, args=(reach,), daemon=True)
    thread.start()
    meanwhile()
    thread.join()
    if problem := problems[0]:
        if address:
            remedy = f"Prefect does not answer at PREFECT_API_URL={address}: start it there (`prefect server start`), "
            raise ChorusError(f"{remedy}or unset the variable for a temporary server ({problem})")
        raise ChorusError(f"Prefect's temporary server does not start: {problem}")


def leave_within(seconds: float, status: int, say: Callable[[str], None]) -> None:
    """End this process with `status` after a while, if it has not ended by itself.

    For a flow that was told to stop and has closed its books: where the temporary server was stopped along with it, as
    `timeout` and service managers do, Prefect would go on asking that server for minutes.
    """

    def leave() -> None:
        say("Prefect's server no longer answers; the stages are ended, its record of this run stays open")
        os._exit(status)

    timer = threading.Timer(seconds, leave)
    timer.daemon = True
    timer.start()
