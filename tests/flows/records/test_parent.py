"""The MLflow run of a flow's run, where MLflow is gone when it ends."""

import socket
from pathlib import Path

import pytest

from flows.records.parent import pipeline_run


def test_what_was_done_counts_though_mlflow_has_gone(
    tracked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    from pipeline.tracking import Tracker

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said: list[str] = []
    tracker = Tracker(tmp_path)
    monkeypatch.setattr("flows.records.parent.Tracker", lambda _root: tracker)
    with pipeline_run(tmp_path, "name", "run", None, said.append) as parent:
        parent.status = "FINISHED"
        tracker.client = MlflowClient(nobody)
    assert "MLflow does not answer" in said[0]
    tracker.client = MlflowClient(tracked)
    assert tracker.client.get_run(parent.id).info.status == "RUNNING"
    tracker.client.set_terminated(parent.id)
    with pytest.raises(ValueError, match="of our own"), pipeline_run(tmp_path, "name", "run", None, said.append):
        raise ValueError("of our own")
