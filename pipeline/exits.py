"""What a command's exit status says of an error: whether the same command can succeed later.

The numbers are those of sysexits.h where it has one.
"""

import errno
import re
import signal
from collections.abc import Iterator

from pipeline.errors import ChorusError, PassingError

BAD_INPUT = 2
NO_ROOM = 74  # EX_IOERR: the disk, a quota or the largest size of a file is reached
CAN_PASS = 75  # EX_TEMPFAIL

# Sent by the kernel that runs out of memory, by schedulers and by those who take a machine back; never by a mistake in
# the program, as SIGSEGV and SIGABRT are.
TAKEN_AWAY = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# As libraries that are not written in Python put it: SQLite, safetensors, torch, drivers of databases; and as MLflow
# quotes in one message what went wrong with each of many files.
SAYS_FULL = re.compile(r"no space left|disk is full|disk quota exceeded|file too large|os error (28|122|27)\b", re.I)
SAYS_PASSING = re.compile(
    r"can(no|')t allocate memory|out of memory|resource temporarily unavailable|database is locked"
    r"|too many (429|5\d\d) error"
    r"|failed with error code (429|5\d\d)|\b(429 client|50[234] server) error|temporary failure in name resolution"
    r"|connection (refused|reset|aborted|timed out)|could not connect to server|can't connect to"
    r"|server closed the connection|connection (is|was|already|has been) closed|terminating connection"
    r"|lost connection to|server has gone away"
    r"|the database system is (starting up|shutting down|in recovery mode)|too many (clients|connections)"
    r"|timeout expired|max retries exceeded",
    re.I,
)
# By name, as no command should import another one's libraries: those of requests, urllib3, httpx, botocore and torch.
NAMES_PASSING = {
    "ConnectionError",
    "Timeout",
    "RetryError",
    "MaxRetryError",
    "ReadTimeoutError",
    "ProtocolError",
    "TransportError",
    "EndpointConnectionError",
    "OutOfMemoryError",
}


def status_of(error: BaseException) -> int:
    """Return the exit status for an error that ended a command: one of the above, or 1 where a repetition is no use."""
    if isinstance(error, PassingError):
        return CAN_PASS
    if isinstance(error, ChorusError):
        return BAD_INPUT
    causes = list(chain(error))
    if any(is_full(cause) for cause in causes):
        return NO_ROOM
    return CAN_PASS if any(passes(cause) for cause in causes) else 1


def lasts(error: BaseException) -> bool:
    """Whether an error says something of what was asked for: not that nobody answers now, nor that there is no room."""
    return status_of(error) not in (CAN_PASS, NO_ROOM)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        inner = getattr(error, "reason", None)  # urllib's and urllib3's errors carry theirs along
        if isinstance(inner, BaseException):
            yield inner
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def is_full(error: BaseException) -> bool:
    """Whether there was no room to write."""
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    return bool(SAYS_FULL.search(str(error)))


def no_room(error: BaseException) -> str:
    """Return what to say of an error for which `status_of` gives `NO_ROOM`."""
    return (
        f"there is no room to write ({error}); nothing was left half written: make room and start again, what is "
        "complete is kept"
    )


def passes(error: BaseException) -> bool:
    """Whether an error comes from memory that others hold too, or from a network or server that may come back."""
    if isinstance(error, MemoryError | ConnectionError | TimeoutError):
        return True
    if type(error).__name__ == "HTTPError":
        code = getattr(error, "code", None) or getattr(getattr(error, "response", None), "status_code", None)
        return code is not None and (code == 429 or code >= 500)
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & NAMES_PASSING) or bool(SAYS_PASSING.search(str(error)))
