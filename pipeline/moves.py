"""Which version users load: moves of the alias `champion`, one at a time, each written down before it is made.

`previous-champion` points to what `champion` pointed to before, so that one command goes back.
"""

import fcntl
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from pipeline import registry
from pipeline.errors import ChorusError, PassingError
from pipeline.exits import CAN_PASS, status_of
from pipeline.params.redaction import redact
from pipeline.registry import CHAMPION, PREVIOUS
from pipeline.signed import check_signed, moment
from pipeline.tracking import PROCESS, Tracker, is_alive, process_identity

PROMOTE, ROLLBACK = "promote", "rollback"
GATE = "chorus.gate"  # tag: the gate's verdict
MOVE = "chorus.move."  # tags of both versions that a move concerns; what follows is its moment, so that they sort
UNCHANGED = "nothing was changed"


@dataclass(frozen=True)
class Move:
    """One move of `champion`: who, why, when (UTC), from which version (None: there was none) to which, and what the
    gate had said of that.
    """

    move: str
    by: str
    why: str
    when: str
    before: str | None
    after: str
    gate: str


def promote(tracker: Tracker, model: str, number: str, *, by: str, why: str) -> Move:
    """Make a version the champion.

    Raises `ChorusError`, and changes nothing, where it does not exist, is the champion already or is not what was
    registered, where `by` or `why` say nothing, and where another move is under way; `PassingError` where the registry
    does not answer: once it does not while the move is made, the message says so.
    """
    with _alone(tracker, model, by):
        return _move(tracker, model, PROMOTE, registry.alias_number(tracker, model, CHAMPION), number, by, why)


def promote_in_place_of(tracker: Tracker, model: str, number: str, champion: str | None, *, by: str, why: str) -> Move:
    """Make a version the champion where that is still the one it was compared with; `ChorusError` as by `promote`."""
    with _alone(tracker, model, by):
        now = registry.alias_number(tracker, model, CHAMPION)
        if now != champion:
            said = [f"version {one}" if one else "none" for one in (now, champion)]
            raise ChorusError(f"the champion is {said[0]} now, not {said[1]} any more; {UNCHANGED}")
        return _move(tracker, model, PROMOTE, now, number, by, why)


def rollback(tracker: Tracker, model: str, *, by: str, why: str) -> Move:
    """Make the previous champion the champion, and the present one the previous; raises `ChorusError` as `promote`."""
    with _alone(tracker, model, by):
        champion = registry.alias_number(tracker, model, CHAMPION)
        previous = registry.alias_number(tracker, model, PREVIOUS)
        if champion is not None and previous == champion:  # a move was cut off between its two aliases
            previous = _before(registry.tags_of(tracker, model, champion), champion)
        if previous is None:
            raise ChorusError(f"'{model}' has no previous champion to go back to; {UNCHANGED}")
        return _move(tracker, model, ROLLBACK, champion, previous, by, why)


def moves_of(tags: Mapping[str, str]) -> list[Move]:
    """Return the moves that a version's tags tell of, the oldest first; unreadable tags are left out."""
    told = [_read(value) for name, value in sorted(tags.items()) if name.startswith(MOVE)]
    return [move for move in told if move]


def _read(text: str) -> Move | None:
    try:
        return Move(**json.loads(text))
    except (TypeError, ValueError):
        return None


def _before(tags: Mapping[str, str], champion: str) -> str | None:
    """Return the version in whose place the champion with these tags came last, None where there was none."""
    return next((move.before for move in reversed(moves_of(tags)) if move.after == champion), None)


def _move(tracker: Tracker, model: str, kind: str, before: str | None, after: str, by: str, why: str) -> Move:
    from mlflow.exceptions import MlflowException

    check_signed(by, why)
    tags = registry.tags_of(tracker, model, after)
    if after == before:
        raise ChorusError(f"version {after} of '{model}' is the champion already; {UNCHANGED}")
    with tempfile.TemporaryDirectory(prefix="chorus-") as temporary:
        _, fault = registry.fetch_whole(tracker, model, after, Path(temporary))
    if fault:
        raise ChorusError(f"version {after} of '{model}' cannot become the champion: {fault}; {UNCHANGED}")
    now = time.time()
    made = Move(kind, redact(by.strip()), redact(why.strip()), moment(now), before, after, tags.get(GATE, "unknown"))
    try:
        _write_and_make(tracker, model, made, f"{MOVE}{now:.3f}")
    except MlflowException as error:
        raise PassingError(
            f"the move of '{model}' to version {after} is written down, but not finished: the registry does not answer "
            f"({error}); look where it stands (python -m flows.review show champion), and try again"
        ) from None
    return made


def _write_and_make(tracker: Tracker, model: str, made: Move, tag: str) -> None:
    # Written down first: a kill in between leaves a move that is told of and was not made, never the reverse.
    for number in filter(None, (made.after, made.before)):
        tracker.client.set_model_version_tag(model, number, tag, json.dumps(asdict(made), ensure_ascii=False))
    if made.before is not None:
        tracker.client.set_registered_model_alias(model, PREVIOUS, made.before)
    tracker.client.set_registered_model_alias(model, CHAMPION, made.after)


@contextmanager
def _alone(tracker: Tracker, model: str, by: str) -> Iterator[None]:
    """Keep every other move out while the context lasts; raises `ChorusError` where one is under way.

    A lock on a file keeps out those of this folder; the kernel takes it back from whoever dies. Other machines that
    share the registry are kept out by a name in it that can be created once.
    """
    with (tracker.root / ".chorus" / "moves.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ChorusError(f"another move of '{model}' is under way; {UNCHANGED}: look, and try again") from None
        with _alone_in_the_registry(tracker, f"{model}.moving", by):
            yield


@contextmanager
def _alone_in_the_registry(tracker: Tracker, name: str, by: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    own = process_identity(psutil.Process())
    tags = {PROCESS: own, "chorus.by": redact(by)}
    try:
        try:
            tracker.client.create_registered_model(name, tags)
        except MlflowException:
            _remove_what_was_left(tracker, name, own)
            tracker.client.create_registered_model(name, tags)
            # Another one may have removed the same leavings, and then the name that had just been created here.
            _check_own(tracker, name, own)
    except MlflowException as error:
        kind = PassingError if status_of(error) == CAN_PASS else ChorusError
        raise kind(f"no move can be made now: {error}; {UNCHANGED}: try again") from None
    try:
        yield
    finally:
        # The outcome counts; a name that stays behind is removed by the next move.
        with suppress(MlflowException):
            tracker.client.delete_registered_model(name)


def _remove_what_was_left(tracker: Tracker, name: str, own: str) -> None:
    """Free the name where the process that created it, on this machine, has died, or where it is this one, whose last
    move could not delete it; raises `ChorusError` where it is another's.
    """
    if is_alive(tracker.client.get_registered_model(name).tags[PROCESS]):
        _check_own(tracker, name, own)
    tracker.client.delete_registered_model(name)


def _check_own(tracker: Tracker, name: str, own: str) -> None:
    """Raise `ChorusError` where the name is another process's."""
    held = tracker.client.get_registered_model(name).tags
    if held[PROCESS] != own:
        raise ChorusError(
            f"another move is under way (by {held['chorus.by']}, process {held[PROCESS]}); {UNCHANGED}. Should that "
            f"process be gone, delete the registered model '{name}' in MLflow"
        )
