"""The automations are on the server once, and a real server acts on them."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.alarms import BLOCK, FAILURE, SILENCE, main

# Flows as Prefect runs them: one fails, the heart of the other stops with its process.
FLOWS = """\
import os, signal, sys
from flows.service.server import connect
connect(print)
from prefect import flow
from prefect.events.worker import EventsWorker

@flow(name="nightly")
def failing():
    raise ValueError('a "quoted" reason')

@flow(name="retrain")
def dying():
    print("run", __import__("prefect").runtime.flow_run.id, flush=True)
    import time; time.sleep(3)
    EventsWorker.instance().wait_until_empty()
    os.kill(os.getpid(), signal.SIGKILL)

{"failing": failing, "dying": dying}[sys.argv[1]]()
"""


def automations(server: str) -> dict[str, Any]:
    found = httpx.post(f"{server}/automations/filter", json={}, timeout=60).json()
    return {automation["name"]: automation for automation in found}


def test_put_once_and_brought_up_to_date(prefect_server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--webhook", "http://127.0.0.1:9/old"]) == 0
    assert main(["--webhook", "http://127.0.0.1:9/new", "--silent-after", "600"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [f"alarms  {SILENCE}", f"alarms  {FAILURE}"]
    found = httpx.post(f"{prefect_server}/automations/filter", json={}, timeout=60).json()
    assert sorted(automation["name"] for automation in found) == [FAILURE, SILENCE]
    assert automations(prefect_server)[SILENCE]["trigger"]["within"] == 600
    from prefect.blocks.webhook import Webhook

    assert Webhook.load(BLOCK).url.get_secret_value().endswith("/new")


@pytest.mark.parametrize(
    ("options", "message"), [(["--silent-after", "5"], "every 10 s"), (["--webhook", "ftp://x"], "https://")]
)
def test_bad_input(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(options) == 2
    assert message in capsys.readouterr().err


class Receiver:
    """An HTTP server on the loopback that keeps what is posted to it."""

    def __init__(self) -> None:
        self.got = got = []  # type: list[dict[str, Any]]

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?token=secret"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def full_server(tmp_path: Path) -> Iterator[str]:
    """The API of a Prefect server of its own with all its services, as `prefect server start` runs it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    environment["PREFECT_SERVER_SERVICES_TRIGGERS_EVALUATION_INTERVAL"] = "1"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    api = f"http://127.0.0.1:{port}/api"
    try:
        until(lambda: httpx.get(f"{api}/health").is_success, 150)
        yield api
    finally:
        server.terminate()
        server.wait(60)


def until(true: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if true():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.mark.slow
def test_a_server_calls_the_webhook_and_ends_the_dead(full_server: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PREFECT_API_URL": full_server, "PREFECT_HOME": str(tmp_path)}
    receiver = Receiver()
    command = [sys.executable, "-m", "flows.alarms", "--webhook", receiver.url, "--silent-after", "20"]
    put = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert "secret" not in put.stdout + put.stderr

    subprocess.run([sys.executable, "-c", FLOWS, "failing"], env=environment, check=False)
    until(lambda: receiver.got, 60)
    (posted,) = receiver.got
    assert posted["text"].startswith("Chorus: nightly ")
    assert posted["text"].endswith(" ended as Failed")
    assert 'a "quoted" reason' in posted["message"]

    died = subprocess.run(
        [sys.executable, "-c", FLOWS, "dying"], env=environment, check=False, capture_output=True, text=True
    )
    run = next(line.split()[1] for line in died.stdout.splitlines() if line.startswith("run "))
    until(lambda: httpx.get(f"{full_server}/flow_runs/{run}").json()["state"]["type"] == "CRASHED", 120)
    receiver.server.shutdown()
