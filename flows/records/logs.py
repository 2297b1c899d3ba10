"""The log of a run as lines of JSON, `.chorus/logs/RUN.jsonl`: what a log shipper reads, and `flows.status`."""

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from flows.onlookers.watcher import Watcher
from flows.stages.outcomes import Outcome
from pipeline.progress import Progress

KEPT = 30  # logs of so many runs; older ones are removed when a new one begins


class JsonLog(Watcher):
    """Writes a line for everything that happens.

    Each has `time` (UTC), `run` (the run's id) and `event`: `began`, `said` (a `line` of the stage's), `progress` (the
    fields of `Progress`) and `ended` (those of `Outcome`) of a `stage`; `run began` (`stages`) and `run ended`.
    """

    def __init__(self, root: Path, run: str, stages: Sequence[str]) -> None:
        self._path, self._run, self._stages = log_path(root, run), run, stages
        self._lock = threading.Lock()
        self._file: TextIO | None = None

    def began(self, stage: str) -> None:
        self._write("began", stage=stage)

    def said(self, stage: str, line: str) -> None:
        progress = Progress.parse(line)
        if progress is None:
            self._write("said", stage=stage, line=line)
        else:
            self._write("progress", stage=stage, **asdict(progress))

    def ended(self, outcome: Outcome) -> None:
        self._write("ended", **asdict(outcome) | {"seconds": round(outcome.seconds, 3)})

    def finished(self, state: str, message: str) -> None:
        self._write("run ended", state=state, message=message)

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()

    def _write(self, event: str, **facts: Any) -> None:
        with self._lock:
            if self._file is None:
                self._file = self._opened()
                self._put("run began", stages=list(self._stages))
            self._put(event, **facts)

    def _put(self, event: str, **facts: Any) -> None:
        assert self._file is not None
        line = {"time": datetime.now(UTC).isoformat(), "run": self._run, "event": event, **facts}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()

    def _opened(self) -> TextIO:
        """Open the log, after the oldest were removed."""
        folder = self._path.parent
        folder.mkdir(parents=True, exist_ok=True)
        for old in sorted(folder.glob("*.jsonl"), key=lambda file: file.stat().st_mtime)[: 1 - KEPT]:
            old.unlink(missing_ok=True)
        return self._path.open("a", encoding="utf-8")


def log_path(root: Path, run: str) -> Path:
    return root / ".chorus" / "logs" / f"{run}.jsonl"


def last_progress(root: Path, run: str) -> dict[str, list[Progress]]:
    """Return how far each stage was that has begun and not ended: the last of each thing that it works on."""
    found: dict[str, dict[str, Progress]] = {}
    for line in _lines(log_path(root, run)):
        stage = line.get("stage", "")
        if line.get("event") == "began":
            found[stage] = {}
        elif line.get("event") == "ended":
            found.pop(stage, None)
        elif line.get("event") == "progress":
            fields = {name: line[name] for name in Progress.__dataclass_fields__}
            found.setdefault(stage, {})[line["what"]] = Progress(**fields)
    return {stage: list(each.values()) for stage, each in found.items()}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a log without those that are torn."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict):
            yield content
