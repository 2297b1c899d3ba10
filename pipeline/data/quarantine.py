"""The list of images that could not be used, each with its reason."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.data.raw import JsonLines, json_lines
from pipeline.errors import ChorusError

EXAMPLES = 3


class Quarantine:
    """Writes the list as a stream and keeps its length and first lines."""

    def __init__(self, lines: JsonLines) -> None:
        self._lines = lines
        self.examples: list[tuple[str, str]] = []

    @property
    def count(self) -> int:
        return self._lines.count

    def add(self, name: str, reason: str) -> None:
        self._lines.add(id=name, reason=reason)
        if len(self.examples) < EXAMPLES:
            self.examples.append((name, reason))

    def check(self, total: int, max_fraction: float, path: Path) -> None:
        """Raise `ChorusError` where more than `max_fraction` of `total` images are bad."""
        if self.count > max_fraction * total:
            examples = "; ".join(f"{name!r}: {reason}" for name, reason in self.examples)
            raise ChorusError(
                f"{self.count:,} of {total:,} images cannot be used ({self.count / total:.1%}, "
                f"data.max_bad_fraction allows {max_fraction:.1%}), for example {examples}. "
                f"{path} lists all of them: repair or remove these files, or raise data.max_bad_fraction"
            )


@contextmanager
def quarantine(path: Path) -> Iterator[Quarantine]:
    """Write a quarantine list, a JSON object with `id` and `reason` a line, whole or not at all."""
    with json_lines(path) as lines:
        yield Quarantine(lines)


def printable(name: str) -> str:
    """Return a file's name as Unicode that only shows: other bytes become escapes, and so does what moves a cursor."""
    text = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
