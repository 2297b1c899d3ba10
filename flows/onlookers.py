"""All that look on at a flow run: the journal, the JSON log, the terminal, and Prefect's page and events."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from flows.events import Events
from flows.live import Board, shown
from flows.logs import JsonLog
from flows.progress_artifacts import ProgressArtifacts
from flows.reasons import Account
from flows.watching import Watcher, Watchers


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
