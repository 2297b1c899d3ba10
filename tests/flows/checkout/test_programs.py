"""Commands of git that nobody sits in front of."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from flows.checkout.programs import git
from pipeline.errors import ChorusError, PassingError
from tests.stub_checkout import call

COMMIT = """\
import signal, sys
from pathlib import Path
from flows.checkout.programs import git
# What a shell starts in the background has the signal ignored from the start.
signal.signal(signal.SIGINT, (lambda *_: None) if sys.argv[2] == "heeded" else signal.default_int_handler)
git(Path(sys.argv[1]), "commit", "--quiet", "--allow-empty", "--message", "Whole")
"""


@contextmanager
def asking_for_a_password() -> Iterator[str]:
    """The address of a server that lets nobody in without one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="here"')
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/repository"
    server.shutdown()


def test_a_remote_that_wants_a_password_is_an_error_and_no_question(fresh: Path) -> None:
    with asking_for_a_password() as address, pytest.raises(ChorusError, match="terminal prompts disabled"):
        git(fresh, "fetch", address)


def test_a_remote_that_does_not_answer_is_left(fresh: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(PassingError, match=r"git fetch in .* did not end within 0.05 minutes"):
            git(fresh, "fetch", f"http://127.0.0.1:{silent.getsockname()[1]}/repository", limit=3)
    assert not [child for child in psutil.Process().children() if child.name().startswith("git")]


@pytest.mark.parametrize(("signals", "commits"), [("heeded", 2), ("raised", 1)])
def test_ctrl_c_leaves_no_half_commit(fresh: Path, signals: str, commits: int) -> None:
    """A flow that heeds the signal by itself lets git end; where it breaks off, git clears up."""
    hook = fresh / ".git" / "hooks" / "pre-commit"
    hook.write_text("#!/bin/sh\ntouch log-of-hook\nsleep 2\n")
    hook.chmod(0o755)
    command = [sys.executable, "-c", COMMIT, str(fresh), signals]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (fresh / "log-of-hook").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert (process.wait(timeout=60) == 0) == (signals == "heeded")
    assert not list((fresh / ".git").glob("*.lock"))
    assert len(call(fresh, "git", "log", "--format=%h").split()) == commits
