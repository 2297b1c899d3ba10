"""Which Prefect server is used, and with which settings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.service.server import DEFAULTS

ROOT = Path(__file__).parents[3]
SERVED = """\
import sys
from pathlib import Path
from flows.deploy import deploy, parser
from pipeline.errors import ChorusError
try:
    deploy(parser().parse_args(["--cron", "0 1 * * *"]), Path.cwd())
except ChorusError:
    from prefect.settings import get_current_settings
    print(get_current_settings().client.max_retries)
"""


def python(checkout: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a program where Prefect has no settings of anybody's."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment = {**others, "PREFECT_HOME": str(checkout / "log"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["deploy", "alarms"])
def test_what_needs_a_server_that_stays_starts_no_temporary_one(command: str, fresh: Path) -> None:
    done = python(fresh, "-m", f"flows.{command}")
    assert done.returncode == 2
    (said,) = done.stderr.splitlines()
    assert "a Prefect server that stays" in said


def test_our_settings_hold_where_deploy_serves(fresh: Path) -> None:
    """Prefect reads them once, when it is imported first."""
    assert python(fresh, "-c", SERVED).stdout.strip() == DEFAULTS["PREFECT_CLIENT_MAX_RETRIES"]
