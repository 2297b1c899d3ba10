"""The exit status of an error, by the errors that the libraries themselves raise."""

import errno
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest
import requests
import torch

from pipeline.__main__ import explained
from pipeline.errors import ChorusError, PassingError
from pipeline.exits import BAD_INPUT, CAN_PASS, NO_ROOM, status_of

NOBODY = "http://127.0.0.1:9"


def error_of(act: Callable[[], object]) -> BaseException:
    try:
        act()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def ask_mlflow() -> None:
    from mlflow.utils.rest_utils import MlflowHostCreds, http_request

    http_request(MlflowHostCreds(NOBODY), "/api", "GET", max_retries=0)


def locked(tmp_path: Path) -> None:
    one, other = (sqlite3.connect(tmp_path / "x.db", timeout=0) for _ in range(2))
    one.execute("CREATE TABLE t (a)")
    one.execute("BEGIN EXCLUSIVE")
    try:
        other.execute("INSERT INTO t VALUES (1)")
    finally:
        one.close()
        other.close()


@pytest.mark.parametrize(
    ("act", "status"),
    [
        (lambda: urlopen(NOBODY, timeout=5), CAN_PASS),
        (lambda: requests.get(NOBODY, timeout=5), CAN_PASS),
        (ask_mlflow, CAN_PASS),
        (lambda: torch.empty(10**15), CAN_PASS),
        (lambda: bytearray(10**17), CAN_PASS),
        (lambda: Path("/nowhere/file").read_text(), 1),
        (lambda: {}["key"], 1),
        (lambda: torch.ones(2) @ torch.ones(3), 1),
    ],
)
def test_status_of_real_errors(act: Callable[[], object], status: int) -> None:
    assert status_of(error_of(act)) == status


def test_status_of_a_locked_database(tmp_path: Path) -> None:
    assert status_of(error_of(lambda: locked(tmp_path))) == CAN_PASS


@pytest.mark.parametrize(("code", "status"), [(404, 1), (429, CAN_PASS), (503, CAN_PASS)])
def test_status_of_answers(code: int, status: int) -> None:
    assert status_of(HTTPError(NOBODY, code, "no", {}, None)) == status  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ('connection to server at "db" (10.0.0.1), port 5432 failed: Connection refused', CAN_PASS),
        ("could not connect to server: No route to host", CAN_PASS),
        ("server closed the connection unexpectedly", CAN_PASS),
        ("SSL connection has been closed unexpectedly", CAN_PASS),
        ("terminating connection due to administrator command", CAN_PASS),
        ("FATAL:  the database system is starting up", CAN_PASS),
        ("FATAL:  sorry, too many clients already", CAN_PASS),
        ("(2003, \"Can't connect to MySQL server on 'db'\")", CAN_PASS),
        ("(2006, 'MySQL server has gone away')", CAN_PASS),
        ("##### File x #####\n503 Server Error: Service Unavailable for url: http://h/x", CAN_PASS),
        ("##### File x #####\n404 Client Error: Not Found for url: http://h/x", 1),
        ('FATAL:  password authentication failed for user "mlflow"', 1),
        ("no such table: registered_models", 1),
    ],
)
def test_status_of_what_drivers_and_mlflow_say_in_words(said: str, status: int) -> None:
    assert status_of(RuntimeError(said)) == status


def test_status_of_our_own_errors() -> None:
    assert status_of(ChorusError("bad")) == BAD_INPUT
    assert status_of(PassingError("away")) == CAN_PASS
    # A cause that we have understood does not count any more.
    assert status_of(error_of(_understood)) == BAD_INPUT


def _understood() -> None:
    try:
        raise URLError("away")
    except URLError:
        raise ChorusError("bad") from None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_beats_what_led_to_it(number: int) -> None:
    def write() -> None:
        try:
            raise ConnectionResetError
        except ConnectionResetError as error:
            raise OSError(number, os.strerror(number)) from error

    assert status_of(error_of(write)) == NO_ROOM


LIMITED = """
import resource, sys, torch
from pathlib import Path
from safetensors.torch import save_file
from pipeline.__main__ import explained
from pipeline.files import replacing, write_bytes
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
path = Path(sys.argv[1])
try:
    write_bytes(path, bytes(10_000))
except Exception as error:
    print(explained(error))
try:
    with replacing(path) as temporary:
        save_file({"x": torch.zeros(10_000)}, temporary)
except Exception as error:
    print(explained(error))
"""


def test_a_file_that_finds_no_room_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("as it was")
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(NO_ROOM)] * 2
    assert all(line.startswith("chorus: there is no room to write") for line in done.stderr.splitlines())
    assert len(done.stderr.splitlines()) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "as it was"


def test_what_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert explained(error_of(lambda: urlopen(NOBODY, timeout=5))) == CAN_PASS
    assert "chorus: this can pass: " in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(KeyError):
        explained(KeyError("key"))
