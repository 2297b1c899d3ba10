"""All that look on at a flow run: the journal, the JSON log, the terminal, and Prefect's page and events."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from flows.onlookers.events import Events
from flows.onlookers.live import Board, shown
from flows.onlookers.progress import ProgressArtifacts
from flows.onlookers.watcher import Watcher, Watchers
from flows.records.logs import JsonLog
from flows.records.reasons import Account


@contextmanager
def onlookers(root: Path, run: str, account: Account, expected: Mapping[str, float]) -> Iterator[Watcher]:
    """Yield what is to be told of a run; run: the id of the flow run, expected: seconds that stages took before."""
    log, artifacts = JsonLog(root, run, account.stages), ProgressArtifacts()
    board = Board(len(account.stages), expected)
    try:
        with shown(board):
            yield Watchers(account, log, board, artifacts, Events(root, account.entry))
    finally:
        artifacts.close()
        log.close()
