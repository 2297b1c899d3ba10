"""What can happen to a stage, and how a whole run ended."""

from dataclasses import dataclass

from pipeline.exits import CAN_PASS, NO_ROOM, no_room, status_of
from pipeline.params.redaction import redact

RAN, RESTORED, CLEAN = "ran", "restored from cache", "up to date"
FAILED, STOPPED, SKIPPED = "failed", "stopped", "not run"
GIVEN_UP = "given up"  # a family could not be trained, and the run goes on without it
HELD = "version is there"  # of the check of the registry
VERIFY = "verify"  # the check of the registry, which is no stage but ends like one


@dataclass(frozen=True)
class Outcome:
    """What happened to a stage: one of the words above, how many seconds it took, and a message where it went wrong.

    attempts: how many of them the seconds are of. passing: why another attempt may succeed; empty where none will.
    status: what the stage's own command ended with, or 124 where it took too long; 0 where it was not that.
    """

    stage: str
    what: str
    seconds: float = 0.0
    message: str = ""
    attempts: int = 1
    passing: str = ""
    status: int = 0

    @property
    def changed(self) -> bool:
        return self.what in (RAN, RESTORED, GIVEN_UP)

    @property
    def succeeded(self) -> bool:
        return self.changed or self.what == CLEAN


@dataclass(frozen=True)
class Result:
    """How a run ended: the outcomes of its stages and of the check of the registry, and the signal that stopped it."""

    outcomes: tuple[Outcome, ...]
    stopped_by: int | None = None

    @property
    def failed(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.what == FAILED)

    @property
    def given_up(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.what == GIVEN_UP)

    @property
    def message(self) -> str:
        """One line for each thing that went wrong, with the last lines of its output below it."""
        if self.stopped_by is not None:
            return "stopped; what was complete is kept, a training goes on from its checkpoint next time"
        parts = [f"{o.stage} failed:\n{_indented(o.message)}" for o in self.failed]
        parts += [f"{o.stage} was given up, the run went on without:\n{_indented(o.message)}" for o in self.given_up]
        if skipped := [outcome.stage for outcome in self.outcomes if outcome.what == SKIPPED]:
            parts.append(f"not run because of that: {', '.join(skipped)}")
        return "\n".join(parts) or "all stages are up to date"

    @property
    def mlflow_status(self) -> str:
        if self.stopped_by is not None:
            return "KILLED"
        return "FAILED" if self.failed else "FINISHED"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def broken(name: str, error: Exception, seconds: float = 0.0) -> Outcome:
    """Return the outcome of a stage that an error of the flow itself kept from its end."""
    status = status_of(error)
    message = no_room(error) if status == NO_ROOM else f"{type(error).__name__}: {error}"
    passing = "its cause can pass" if status == CAN_PASS else ""
    return Outcome(name, FAILED, seconds, redact(message), passing=passing)
