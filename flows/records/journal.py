"""The journal of a checkout: one line of JSON for each run that has ended, however it did, in `.chorus/journal.jsonl`.

A run that goes on keeps its entry in a file of its own, so that one that was killed is found and entered by the next.
"""

import errno
import fcntl
import os
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import TypeVar

import psutil
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from flows.planning.graph import require_checkout
from flows.stages.outcomes import FAILED, RAN
from pipeline.errors import ChorusError
from pipeline.files import write_bytes, write_text
from pipeline.params.redaction import redact
from pipeline.tracking import is_alive, process_identity

COMPLETED, REFUSED, IDLE, KILLED, RUNNING = "completed", "refused", "nothing to do", "killed", "running"
LOCAL = "local"  # the driver that runs stages on this machine
COMMAND = "command"
# What starts runs in this thread: `command`, by hand, or a deployment's name.
TRIGGER: ContextVar[str] = ContextVar("trigger", default=COMMAND)
LARGEST = 4_000_000  # bytes of the journal: thousands of nights

Line = TypeVar("Line", bound=BaseModel)


class StageEntry(BaseModel):
    """What happened to one stage in a run: the word of its `Outcome`, its seconds, why, how often it was begun."""

    model_config = ConfigDict(frozen=True)

    stage: str
    what: str
    seconds: float = 0.0
    why: str = ""
    attempts: int = 1


class Entry(BaseModel):
    """One run.

    state: completed, failed, stopped (by a signal), refused (bad input, or the checkout was taken), nothing to do,
    killed (found by a later run; `ended` is when it last wrote), running.
    driver: what ran the stages. trigger: `command`, or the deployment that started it. message: what went wrong.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    started: AwareDatetime
    ended: AwareDatetime
    state: str
    driver: str
    trigger: str = COMMAND
    stages: tuple[StageEntry, ...] = ()
    message: str = ""

    @property
    def seconds(self) -> float:
        return (self.ended - self.started).total_seconds()


class _Open(BaseModel):
    """The first line of the file of a run that goes on: its entry as it began, and the process that it goes on in."""

    entry: Entry
    process: str  # see `pipeline.tracking.process_identity`


class Book:
    """The entry of the current run, whose stages are written down as they end; several threads may add some.

    Where the journal cannot be written, as on a full disk, that is said and the run goes on.
    """

    def __init__(self, root: Path, entry: Entry) -> None:
        self._root, self._entry, self._ended = root, entry, False
        self._stages: list[StageEntry] = []
        self._lock = threading.Lock()
        self._path = _folder(root) / f"{entry.id}.jsonl"
        opened = _Open(entry=entry, process=process_identity(psutil.Process()))
        with _saying_faults():
            write_text(self._path, opened.model_dump_json() + "\n")

    def add(self, stage: StageEntry) -> None:
        """Enter a stage that has ended."""
        with self._lock, _saying_faults():
            self._stages.append(stage)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(stage.model_dump_json() + "\n")

    def end(self, state: str, message: str = "") -> None:
        """Write the run's line, once; later calls change nothing."""
        with self._lock, _saying_faults():
            if self._ended:
                return
            self._ended = True
            said = {"state": state, "message": redact(message), "stages": tuple(self._stages), "ended": now()}
            append(self._root, self._entry.model_copy(update=said))
            self._path.unlink(missing_ok=True)


@contextmanager
def keeping(root: Path, number: str | None = None, driver: str = LOCAL) -> Iterator[Book]:
    """Keep the book of a run while the context lasts; what is raised in it ends the run as refused or failed.

    number: the run's id, of Prefect where it is a flow run. Raises `ChorusError` where `root` is no checkout.
    """
    require_checkout(root)
    enter_killed(root)
    at, number = now(), number or str(uuid.uuid4())
    book = Book(root, Entry(id=number, started=at, ended=at, state=RUNNING, driver=driver, trigger=TRIGGER.get()))
    try:
        yield book
    except ChorusError as error:
        book.end(REFUSED, str(error))
        raise
    except BaseException as error:
        book.end(FAILED, f"{type(error).__name__}: {error}".removesuffix(": "))
        raise
    book.end(COMPLETED)


def enter_refused(root: Path, message: str) -> None:
    """Enter a run that was refused before it began; a folder that is no checkout has no journal."""
    with suppress(ChorusError), keeping(root) as book:
        book.end(REFUSED, message)


def enter_killed(root: Path) -> list[Entry]:
    """Enter the runs whose process is gone without having ended them, and return them."""
    killed = [entry for entry in running(root) if entry.state == KILLED]
    with _saying_faults():
        for entry in killed:
            append(root, entry)
            (_folder(root) / f"{entry.id}.jsonl").unlink(missing_ok=True)
    return killed


def running(root: Path) -> list[Entry]:
    """Return the runs that have written no line: those that go on, and killed ones that were not entered yet.

    `ended` is now, and of a killed one when it last wrote.
    """
    found = (_unfinished(path) for path in sorted(_folder(root).glob("*.jsonl")))
    return [entry for entry in found if entry is not None]


def append(root: Path, entry: Entry) -> None:
    """Add a line to the journal and make it last; of a journal grown beyond `LARGEST` the newer half is kept."""
    path = _path(root)
    path.parent.mkdir(exist_ok=True)
    line = entry.model_dump_json().encode() + b"\n"
    with path.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Not opened sooner: whoever held the lock may have put another file in its place.
        with path.open("ab+", buffering=0) as file:
            _write_last(file, line)
            end = file.tell()
        if end > LARGEST:
            _, _, newer = path.read_bytes()[-LARGEST // 2 :].partition(b"\n")
            write_bytes(path, newer)


def _write_last(file: FileIO, line: bytes) -> None:
    if (end := file.seek(0, os.SEEK_END)) > 0:
        file.seek(end - 1)
        # A line that a crash tore off stays alone.
        line = line if file.read(1) == b"\n" else b"\n" + line
    if file.write(line) < len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file.name))
    os.fsync(file.fileno())


def read(root: Path) -> list[Entry]:
    """Return all runs that have ended, the oldest first; lines that cannot be read are passed over."""
    try:
        lines = _path(root).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found: dict[str, Entry] = {}
    for line in lines:
        if (entry := _parsed(Entry, line)) is not None:
            # A run that was killed while it ended can be entered again as killed.
            found.setdefault(entry.id, entry)
    return list(found.values())


def expected_seconds(root: Path) -> dict[str, float]:
    """Return how many seconds each stage took when it last ran; stages that never did are left out."""
    return {stage.stage: stage.seconds for entry in read(root) for stage in entry.stages if stage.what == RAN}


def now() -> datetime:
    return datetime.now(UTC)


@contextmanager
def _saying_faults() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        print(f"chorus: the journal of this run cannot be written: {error}", file=sys.stderr, flush=True)


def _path(root: Path) -> Path:
    return root / ".chorus" / "journal.jsonl"


def _unfinished(path: Path) -> Entry | None:
    """Read the file of a run without a line; None where the run has ended just now, or nothing can be read."""
    try:
        first, *rest = path.read_bytes().splitlines()
        wrote = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        opened = _Open.model_validate_json(first)
    except (FileNotFoundError, ValueError):
        return None
    stages = tuple(stage for line in rest if (stage := _parsed(StageEntry, line)) is not None)
    if is_alive(opened.process):
        return opened.entry.model_copy(update={"stages": stages, "ended": now()})
    said = {"state": KILLED, "message": f"process {opened.process.rsplit(':', 2)[1]} is gone"}
    return opened.entry.model_copy(update={"stages": stages, "ended": wrote, **said})


def _folder(root: Path) -> Path:
    return root / ".chorus" / "runs"


def _parsed(model: type[Line], line: bytes) -> Line | None:
    """Return what a line says; None for one that was torn off or damaged."""
    try:
        return model.model_validate_json(line)
    except ValidationError:
        return None
