"""Lines that say how far long work is: stages print them, and whoever runs stages reads them, by the same class."""

import re
from dataclasses import dataclass
from typing import Self

_LINE = re.compile(
    r"(?P<what>\S.*?)  (?P<done>[\d,.]+)/(?P<total>[\d,.]+) (?P<unit>\S+)  (?P<rate>[\d,.]+) (?P<per>\S+)/s  "
    r"(?:(?P<note>\S.*?)  )?left (?P<hours>\d+):(?P<minutes>\d\d):(?P<seconds>\d\d)"
)


@dataclass(frozen=True)
class Progress:
    """How far one piece of work is.

    what: the stage, and what it works on (`train mlp/r0`); two blanks in a row are in no text here.
    done, total: in `unit`. rate: in `per` a second. left: seconds. note: anything else, such as losses.
    """

    what: str
    done: float
    total: float
    unit: str
    rate: float
    per: str
    left: int
    note: str = ""

    def __str__(self) -> str:
        note = f"{self.note}  " if self.note else ""
        counted = f"{_number(self.done)}/{_number(self.total)} {self.unit}"
        return f"{self.what}  {counted}  {_number(self.rate)} {self.per}/s  {note}left {_clock(self.left)}"

    @classmethod
    def parse(cls, line: str) -> Self | None:
        """Read what `str` wrote, to the digits that it shows; None for any other line."""
        found = _LINE.fullmatch(line)
        if found is None:
            return None
        done, total, rate = (float(found[name].replace(",", "")) for name in ("done", "total", "rate"))
        left = int(found["hours"]) * 3600 + int(found["minutes"]) * 60 + int(found["seconds"])
        return cls(found["what"], done, total, found["unit"], rate, found["per"], left, found["note"] or "")

    @property
    def percent(self) -> float:
        return min(100.0, 100 * self.done / self.total) if self.total else 0.0

    @property
    def summary(self) -> str:
        """How far it is, its rate and the time left, as a phrase."""
        counted = f"{_number(self.done)} of {_number(self.total)} {self.unit}"
        return f"{counted}, {_number(self.rate)} {self.per}/s, {_clock(self.left)} left"


def _clock(seconds: int) -> str:
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}".removesuffix(".0")
