"""What is served and when it starts; that it does what the command does; and that ending it reaches the stages."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.checkout.exclusive import alone
from flows.deploy import deployments, main, parser
from flows.records.journal import read
from tests.stub_checkout import environment_for, gone, order

ROOT = Path(__file__).parents[2]


def served(*arguments: str) -> list[Any]:
    return deployments(parser().parse_args(arguments))


def test_a_schedule_has_its_time_zone() -> None:
    (nightly,) = served("--cron", "30 1 * * *", "--timezone", "Europe/Berlin", "--commit", "--slots", "2")
    (schedule,) = nightly.schedules
    assert (schedule.schedule.cron, schedule.schedule.timezone) == ("30 1 * * *", "Europe/Berlin")
    assert schedule.active
    assert nightly.parameters == {"commit": True, "slots": 2, "runner": "local", "ray_address": None}
    assert (nightly.flow_name, nightly.name, nightly.entrypoint) == ("nightly", "chorus", "flows.nightly.nightly")
    (cluster,) = served("--runner", "ray", "--ray-address", "head:6379")
    assert (cluster.parameters["runner"], cluster.parameters["ray_address"]) == ("ray", "head:6379")
    (every,) = served("--every", "90", "--name", "mine")
    assert every.schedules[0].schedule.interval.total_seconds() == 90
    assert not served()[0].schedules


def test_watching_is_a_deployment_of_its_own() -> None:
    nightly, watch = served("--watch", "data,drift", "--watch-every", "5")
    assert watch.schedules[0].schedule.interval.total_seconds() == 300
    assert watch.parameters == {"deployment": "nightly/chorus", "data": True, "upstream": False, "drift": True}
    assert not nightly.schedules


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cron", "at night"], "--cron 'at night': minute, hour"),
        (["--cron", "0 1 * * *", "--timezone", "Mars/Base"], "--timezone Mars/Base: there is none"),
        (["--cron", "0 1 * * *", "--timezone", "../etc"], "--timezone ../etc: there is none"),
        (["--watch", "data,moon"], "--watch moon: there are data, upstream, drift"),
    ],
)
def test_bad_options(
    arguments: list[str], said: str, fresh: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(fresh)
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_the_work_pools_file_is_of_the_same_flows() -> None:
    """Its entry points exist, and take the parameters that stand there."""
    from prefect.flows import load_flow_from_entrypoint

    listed = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert [(each["name"], each["entrypoint"]) for each in listed] == [
        ("chorus", "flows.nightly.nightly"),
        ("chorus", "flows.watch.watch"),
    ]
    for each in listed:
        flow = load_flow_from_entrypoint(each["entrypoint"])
        flow.validate_parameters(each.get("parameters", {}))
        for schedule in each["schedules"]:
            served("--cron", schedule["cron"], "--timezone", schedule["timezone"])


def test_nothing_to_do_and_no_turn_are_states_by_name_and_no_failures(
    done: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.nightly import nightly

    monkeypatch.chdir(done)
    assert nightly(return_state=True).name == "Nothing to do"
    with alone(done, "refuse", print):
        skipped = nightly(return_state=True)
    assert (skipped.name, skipped.is_completed()) == ("Skipped", True)
    assert f"process {os.getpid()}" in skipped.message
    (done / "params.yaml").write_text((done / "params.yaml").read_text().replace("lr: 0.1", "lr: -1"))
    failed = nightly(return_state=True)
    assert failed.is_failed()
    assert "families.x.lr = -1" in failed.message
    assert [entry.state for entry in read(done)] == ["nothing to do", "refused", "refused"]


@pytest.mark.slow
def test_the_served_flow_trains_in_a_thread_too(
    done: Path, prefect_server: str, tracked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No signal arrives there, so it installs no handlers."""
    from flows.nightly import nightly

    monkeypatch.chdir(done)
    (done / "params.yaml").write_text((done / "params.yaml").read_text().replace("lr: 0.1", "lr: 0.2"))
    ended: list[Any] = []
    thread = threading.Thread(target=lambda: ended.append(nightly(only=["train"], return_state=True)))
    thread.start()
    thread.join()
    assert ended[0].name == "Completed"
    assert {name for name, _ in order(done)} == {"x"}
    assert [entry.state for entry in read(done)] == ["completed"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ending_a_served_run_ends_its_stages(done: Path, prefect_server: str, tracked: str) -> None:
    """Cancelled in Prefect's pages, and by SIGTERM to the service: the training writes its checkpoint both times."""
    from prefect.client.orchestration import get_client
    from prefect.deployments import run_deployment
    from prefect.states import Cancelling

    log = done / "log"
    log.mkdir()
    (log / "x.sleep").touch()
    (done / "params.yaml").write_text((done / "params.yaml").read_text().replace("lr: 0.1", "lr: 0.2"))
    command = [sys.executable, "-P", "-m", "flows.deploy", "--name", "ending"]
    environment = {**environment_for(prefect_server, tracked), "PYTHONPATH": str(ROOT)}
    service = subprocess.Popen(command, cwd=done, env=environment)
    try:
        with get_client(sync_client=True) as client:
            wait_for(lambda: "ending" in {found.name for found in client.read_deployments()}, service)
            for end in ("cancel", "terminate"):
                run = run_deployment("nightly/ending", timeout=0, as_subflow=False)
                wait_for(lambda: (log / "x.pid").exists() and (log / "x.pid").read_text(), service)
                stage = int((log / "x.pid").read_text())
                if end == "cancel":
                    client.set_flow_run_state(run.id, Cancelling())
                else:
                    service.terminate()
                wait_for(lambda stage=stage: gone(stage), service if end == "cancel" else None)
                assert (log / "x.checkpoint").exists()
                (log / "x.pid").unlink()
                (log / "x.checkpoint").unlink()
                wait_for(lambda run=run: client.read_flow_run(run.id).state.is_final(), None)
                assert client.read_flow_run(run.id).state.name == "Cancelled"
        assert service.wait(60) == 0
    finally:
        service.kill()
        service.wait()
    assert [entry.state for entry in read(done)] == ["stopped", "stopped"]


def wait_for(condition: Callable[[], Any], process: "subprocess.Popen[bytes] | None") -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert process is None or process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
