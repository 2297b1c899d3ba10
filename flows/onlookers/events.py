"""Prefect events of a run, which automations can wait for: `chorus.stage.…` and `chorus.run.…`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect.events import emit_event

from flows.onlookers.watcher import Watcher
from flows.records.journal import StageEntry
from flows.stages.outcomes import Outcome


class Events(Watcher):
    """Emits `chorus.stage.began`, `chorus.stage.` with an outcome's word (`ran`, `failed`, `not-run`…), and in the end
    `chorus.run.` with the journal's word for how the run ended.

    entry: turns an outcome into the journal's entry, which is the event's payload. Prefect sends events from a thread
    of its own, so a server that is away holds nothing up, and names the flow and task run that an event belongs to.
    """

    def __init__(self, root: Path, entry: Callable[[Outcome], StageEntry]) -> None:
        self._root, self._entry = root, entry

    def began(self, stage: str) -> None:
        self._emit("stage.began", f"chorus.stage.{stage}", stage, {})

    def ended(self, outcome: Outcome) -> None:
        entry = self._entry(outcome)
        self._emit(f"stage.{entry.what}", f"chorus.stage.{entry.stage}", entry.stage, entry.model_dump())

    def finished(self, state: str, message: str) -> None:
        payload = {"state": state, "message": message, "checkout": str(self._root)}
        self._emit(f"run.{state}", f"chorus.checkout.{self._root.name}", self._root.name, payload)

    def _emit(self, event: str, resource: str, name: str, payload: dict[str, Any]) -> None:
        about = {"prefect.resource.id": resource, "prefect.resource.name": name}
        emit_event(f"chorus.{event.replace(' ', '-')}", about, payload=payload)
