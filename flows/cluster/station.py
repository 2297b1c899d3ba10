"""The Ray actor that stands on a node for one stage: it starts the node's program and passes on what that says.

Ray sends this file itself, so a node needs no copy of the project; nothing but the standard library is imported here.
"""

import io
import os
import queue
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from flows.cluster.node import main; sys.exit(main())"


class Station:
    """One stage on this node. What `cargo` holds is unpacked to a temporary folder that goes with the actor."""

    def __init__(self, cargo: bytes) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="chorus-")
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._program: subprocess.Popen[str] | None = None
        with tarfile.open(fileobj=io.BytesIO(cargo)) as archive:
            archive.extractall(self._folder.name, filter="data")

    def start(self, order: str) -> str:
        """Start the node's program with an order, a line of JSON; return this node's name."""
        folder = Path(self._folder.name)
        arguments = [str(folder / "program"), str(folder / "repository"), str(folder / "result.json")]
        # Ray's own settings, and its token, are none of the stage's business.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        # In a session of its own: Ray ends its workers' groups, and the program has its stage to end in good order.
        self._program = subprocess.Popen(
            [sys.executable, "-c", START, *arguments],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self.tell(order)
        threading.Thread(target=self._listen, daemon=True).start()
        return os.uname().nodename

    def hear(self, seconds: float) -> tuple[Sequence[str], int | None]:
        """Wait up to `seconds` for output; return its lines and, with the last ones, the program's status."""
        lines: list[str] = []
        try:
            line = self._lines.get(timeout=seconds)
            while line is not None:
                lines.append(line)
                line = self._lines.get_nowait()
        except queue.Empty:
            return lines, None
        return lines, self._running.wait()

    def tell(self, word: str) -> None:
        """Pass a word on to the program, unless that has ended meanwhile."""
        with suppress(OSError, ValueError):
            self._input.write(f"{word}\n")
            self._input.flush()

    def result(self) -> str:
        """Return what the program has written, once it has ended with status 0."""
        return (Path(self._folder.name) / "result.json").read_text(encoding="utf-8")

    @property
    def _running(self) -> "subprocess.Popen[str]":
        assert self._program is not None, "start comes first"
        return self._program

    @property
    def _input(self) -> IO[str]:
        assert self._running.stdin is not None
        return self._running.stdin

    def _listen(self) -> None:
        assert self._running.stdout is not None
        for line in self._running.stdout:
            self._lines.put(line.rstrip())
        self._lines.put(None)
