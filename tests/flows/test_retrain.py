"""The command: exit statuses, what it prints, what it commits, and how it ends when it is stopped."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from base64 import b64encode
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient
from PIL import Image
from prefect.artifacts import Artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.sorting import FlowRunSort

from flows.checkout.exclusive import alone
from flows.records.journal import expected_seconds, read
from flows.records.logs import log_path
from flows.retrain import main
from pipeline.exclusive import BusyError
from tests.stub_checkout import call, dvc, edit, environment_for, gone, order


def write_results(root: Path) -> None:
    (root / "report").mkdir()
    arms = [
        {"name": "x/r0", "kind": "member", "metrics": {"fd_selfsup": 2.5}, "cost": 1.0},
        {"name": "weighted", "kind": "strategy", "metrics": {"fd_selfsup": 1.25}, "cost": 1.0},
    ]
    metrics = {"split": "gate", "winner": "weighted", "arms": arms, "headline": ["fd_selfsup"], "floor": {}}
    (root / "report" / "metrics.json").write_text(json.dumps(metrics))
    (root / "report" / "report.html").write_text("<html>")
    registration = {"model": "chorus", "version": "3", "strategy": "weighted", "report": "report/report.html"}
    (root / "registration.json").write_text(json.dumps(registration))


def journalled(root: Path) -> list[str]:
    return [entry.state for entry in read(root)]


def prefect_events(server: str) -> set[str]:
    """Names of Chorus's events on the server, once that of a run's end has come: they are sent in the background."""
    names: set[str] = set()
    for _ in range(60):
        found = httpx.post(f"{server}/events/filter", json={"filter": {"event": {"prefix": ["chorus."]}}, "limit": 50})
        names = {event["event"] for event in found.json()["events"]}
        if "chorus.run.completed" in names:
            break
        time.sleep(0.5)
    assert "chorus.run.completed" in names
    return names


def pipeline_runs(store: str) -> list[Any]:
    client = MlflowClient(store, registry_uri=store)
    experiment = client.get_experiment_by_name("chorus")
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def test_bad_parameters_touch_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(here / "params.yaml", "lr: 0.1", "lr: -1")
    assert main([]) == 2
    assert "families.x.lr = -1" in capsys.readouterr().err
    assert order(here) == []
    assert journalled(here) == ["refused"]
    assert "families.x.lr = -1" in read(here)[0].message


def test_unknown_stage_and_no_checkout(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["--only", "ingest,nothing"]) == 2
    assert "no stage 'nothing'" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert main([]) == 2
    assert "params.yaml is missing" in capsys.readouterr().err


def test_server_that_does_not_answer(here: Path) -> None:
    edit(here / "params.yaml", "lr: 0.1", "lr: 0.2")
    command = [sys.executable, "-P", "-m", "flows.retrain"]
    environment = environment_for("http://127.0.0.1:9/api", "sqlite:////nowhere/mlflow.db")
    ended = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "PREFECT_API_URL=http://127.0.0.1:9/api" in ended.stderr
    assert order(here) == []


def test_an_mlflow_server_that_is_away_ends_the_flow_without_its_password(here: Path, prefect_server: str) -> None:
    edit(here / "params.yaml", "lr: 0.1", "lr: 0.2")
    environment = environment_for(prefect_server, "http://user:hunter22@127.0.0.1:9")
    environment["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    command = [sys.executable, "-P", "-m", "flows.retrain"]
    ended = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr
    assert "the flow ended as Failed: MlflowException: " in ended.stderr
    assert "***@127.0.0.1" in ended.stderr
    with get_client(sync_client=True) as client:
        run = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0]
        logs = [log.message for log in client.read_logs()]
    for text in (ended.stdout, ended.stderr, run.state.message, *logs):
        assert "hunter22" not in text
    assert journalled(here) == ["failed"]


def test_no_room_to_write(here: Path) -> None:
    command = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", sys.executable, "-P", "-m", "flows.retrain"]
    ended = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    assert ended.returncode == 74
    assert ended.stderr.startswith("chorus: there is no room to write (")
    assert "Traceback" not in ended.stderr


def test_plan_runs_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(here / "params.yaml", "lr: 0.1", "lr: 0.2")
    assert main(["--plan"]) == 0
    assert "params changed: families.x.lr" in capsys.readouterr().out
    assert order(here) == []
    assert not (here / ".chorus").exists()


def test_nothing_to_do_still_checks_the_registry(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_results(here)
    assert main(["--commit"]) == 0
    said = capfd.readouterr()
    assert "nothing to do" in said.err
    assert "asked to verify" in said.err
    assert "nothing to commit" in said.err
    assert "weighted" in said.out
    assert "chorus version 3" in said.out
    (here / "log").mkdir(exist_ok=True)
    (here / "log" / "verify.wrong").touch()
    assert main([]) == 1
    assert "verify failed" in capfd.readouterr().err
    assert journalled(here) == ["nothing to do", "failed"]


def test_run_and_commit(here: Path, prefect_server: str, tracked: str, capfd: pytest.CaptureFixture[str]) -> None:
    write_results(here)
    (here / "report" / "card.md").write_text("# m: `weighted`\n")
    (here / "report" / "gate").mkdir()
    Image.new("L", (640, 1)).save(sheet := here / "report" / "gate" / "candidate.png")
    (here / "report" / "gate" / "champion.png").write_bytes(b"not a picture")
    edit(here / "params.yaml", "lr: 0.1", "lr: 0.2")
    (here / "notes.txt").write_text("not for this commit")
    call(here, "git", "add", "notes.txt")
    assert main(["--commit", "--slots", "1"]) == 0
    said = capfd.readouterr()
    assert "params.yaml" in said.err.splitlines()[-1]
    assert "fd_selfsup" in said.out
    rows = json.loads(Artifact.get(key="stages").data)
    assert {row["stage"]: row["what happened"] for row in rows} == {
        "ingest": "up to date",
        "train@x": "ran",
        "train@y": "up to date",
        "register": "up to date",
        "verify": "version is there",
    }
    distances = json.loads(Artifact.get(key="distances").data)
    assert {row["name"]: row["fd_selfsup"] for row in distances}["weighted"] == 1.25
    assert Artifact.get(key="model-card").data == "# m: `weighted`\n"
    assert Artifact.get(key="candidate").data == f"data:image/png;base64,{b64encode(sheet.read_bytes()).decode()}"
    assert Artifact.get(key="champion") is None
    message = call(here, "git", "log", "-1", "--format=%B")
    assert message.splitlines()[0] == "Retrain x"
    assert "Stages: train@x" in message
    assert "Winner: weighted (fd_selfsup 1.25)" in message
    assert call(here, "git", "show", "--format=", "--name-only", "HEAD").split() == ["dvc.lock"]
    assert "A  notes.txt" in call(here, "git", "status", "--porcelain")
    assert dvc(here, "status", "--json").strip() == "{}"
    run = pipeline_runs(tracked)[0]
    assert run.info.status == "FINISHED"
    assert len(run.data.tags["mlflow.source.git.commit"]) == 40
    assert run.data.tags["chorus.dirty"] == "true"
    assert run.data.tags["prefect.flow_run"]
    (entry,) = read(here)
    assert (entry.state, entry.trigger, entry.id) == ("completed", "command", run.data.tags["prefect.flow_run"])
    assert {stage.stage: stage.why for stage in entry.stages} == {
        "ingest": "nothing changed",
        "train@x": "params changed: families.x.lr",
        "train@y": "nothing changed",
        "register": "its inputs came out as they were",
        "verify": "",
    }
    assert list(expected_seconds(here)) == ["train@x"]
    events = [json.loads(line) for line in log_path(here, entry.id).read_text().splitlines()]
    assert "working on x" in [event.get("line") for event in events if event.get("stage") == "train@x"]
    assert events[-1]["event"] == "run ended"
    assert {"chorus.stage.began", "chorus.stage.ran", "chorus.stage.up-to-date"} < prefect_events(prefect_server)


def test_failed_stage(here: Path, prefect_server: str, tracked: str, capfd: pytest.CaptureFixture[str]) -> None:
    edit(here / "params.yaml", "lr: 0.1", "lr: 0.3")
    (here / "log").mkdir(exist_ok=True)
    (here / "log" / "x.wrong").touch()
    assert main([]) == 1
    said = capfd.readouterr()
    assert "train@x failed:\n    chorus: wrong input\n" in said.err
    assert "not run because of that: register" in said.err
    assert "asked to verify" not in said.err
    assert pipeline_runs(tracked)[0].info.status == "FAILED"
    (entry,) = read(here)
    assert entry.state == "failed"
    assert entry.message.startswith("train@x failed:\n    chorus: wrong input")
    said_why = {stage.stage: stage.why for stage in entry.stages}
    assert said_why["train@x"] == "chorus: wrong input"
    assert said_why["register"] == "train@x went wrong"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopping(here: Path, prefect_server: str, tracked: str, number: int, status: int) -> None:
    edit(here / "params.yaml", "lr: 0.1", "lr: 0.4")
    log = here / "log"
    log.mkdir(exist_ok=True)
    (log / "x.sleep").touch()
    command = [sys.executable, "-P", "-m", "flows.retrain"]
    # A shell that starts the tests in the background makes them, and all they start, ignore SIGINT.
    original = signal.signal(signal.SIGINT, signal.default_int_handler)
    flow = subprocess.Popen(command, cwd=here, env=environment_for(prefect_server, tracked), stderr=subprocess.PIPE)
    signal.signal(signal.SIGINT, original)
    deadline = time.monotonic() + 90
    while not (log / "x.pid").exists() or not (log / "x.pid").read_text():
        assert flow.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    stage = int((log / "x.pid").read_text())
    os.kill(flow.pid, number)
    _, said = flow.communicate(timeout=60)
    assert flow.returncode == status
    assert f"{signal.Signals(number).name}: ending the stages".encode() in said
    assert gone(stage)
    assert (log / "x.checkpoint").exists()
    assert "lr: 0.4" not in (here / "dvc.lock").read_text()
    run = pipeline_runs(tracked)[0]
    assert run.info.status == "KILLED"

    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        assert client.read_flow_run(run.data.tags["prefect.flow_run"]).state.name == "Cancelled"
    assert journalled(here) == ["stopped"]


def test_two_flows_in_one_checkout(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(here / "params.yaml", "lr: 0.1", "lr: 0.5")
    with alone(here, "refuse", print):
        assert main([]) == 2
        assert f"is taken by process {os.getpid()}" in capsys.readouterr().err
        assert main(["--plan"]) == 0
    assert order(here) == []
    assert journalled(here) == ["refused"]


def test_a_second_flow_waits_where_it_is_told_to(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = here / "params.yaml"
    path.write_text(path.read_text() + "flow: {busy: wait}\n")
    held = ExitStack()
    held.enter_context(alone(here, "refuse", print))
    threading.Timer(2, held.close).start()
    assert main([]) == 0
    said = capfd.readouterr().err
    assert said.index("waiting for it") < said.index("nothing to do")


def test_of_those_on_one_errand_one_waits(tmp_path: Path) -> None:
    def wait() -> None:
        with alone(tmp_path, "wait", lambda _: waits.set(), "scheduled"):
            taken.set()

    waits, taken = threading.Event(), threading.Event()
    with alone(tmp_path, "refuse", print, "scheduled"):
        threading.Thread(target=wait).start()
        assert waits.wait(10)
        with pytest.raises(BusyError, match="place of the next run"), alone(tmp_path, "wait", print, "scheduled"):
            pass
    assert taken.wait(10)


def test_flows_import_no_torch() -> None:
    code = "import sys, flows.retrain, flows.run; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
