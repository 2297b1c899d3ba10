"""What people sign: their name, their reason and the moment."""

from datetime import UTC, datetime

from pipeline.errors import ChorusError

LONGEST = 500  # characters of a name or a reason


def check_signed(by: str, why: str) -> None:
    """Raise `ChorusError` where a name or a reason is empty, too long or more than a line."""
    for name, text in {"by": by, "why": why}.items():
        if not text.strip() or len(text) > LONGEST or not text.strip().isprintable():
            raise ChorusError(f"--{name} has to be one line of 1 to {LONGEST} characters; nothing was changed")


def moment(seconds: float) -> str:
    """Write a time, given in seconds since 1970, as people read it, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
