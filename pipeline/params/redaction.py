"""Credentials kept out of what is printed, logged and reported."""

import os
import re
import sys
import traceback
from types import TracebackType

HIDDEN = "***"
# `user:password` before the host of an address; a password may hold an @ of its own, but no slash.
USER = re.compile(r"(?<=://)[^/\s'\"<>]+(?=@)")
QUERY = re.compile(
    r"([?&][\w.-]*(?:password|passwd|token|secret|signature|credential|api_?key)[\w.-]*=)[^&\s'\"<>]+", re.I
)
# Names of environment variables whose values are secrets: MLFLOW_TRACKING_PASSWORD, AWS_SECRET_ACCESS_KEY…
SECRET = re.compile(r"PASSWORD|PASSWD|TOKEN|SECRET|API_KEY|AUTH_STRING|PASSPHRASE")
SHORTEST = 6  # characters of a secret that is looked for: a shorter one would be found in innocent words


def redact(text: str) -> str:
    """Return a text without credentials: those inside addresses, and the values of the environment's secrets."""
    for name, value in os.environ.items():
        if SECRET.search(name.upper()) and len(value) >= SHORTEST:
            text = text.replace(value, HIDDEN)
    return QUERY.sub(rf"\g<1>{HIDDEN}", USER.sub(HIDDEN, text))


def redacted_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an unexpected error as Python does, without credentials; to be `sys.excepthook`."""
    print(redact("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def holds_credentials(text: str) -> bool:
    """Whether an address in a text has credentials inside."""
    return bool(USER.search(text) or QUERY.search(text))
