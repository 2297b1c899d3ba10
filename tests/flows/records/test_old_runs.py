"""Which runs of MLflow are removed, and what goes with them."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient

from flows.records.old_runs import DAY, ORIGINAL, old_runs, remove_runs
from pipeline.stages import opening
from pipeline.tracking import KIND, PARENT, Tracker


def run_of(client: MlflowClient, experiment: str, days: float, **tags: str) -> str:
    """Make a run that ended so many days ago."""
    then = int((time.time() - days * DAY) * 1000)
    named = {name.replace("_", "."): value for name, value in tags.items()}
    run = client.create_run(experiment, start_time=then, tags=named)
    client.set_terminated(run.info.run_id, end_time=then)
    return str(run.info.run_id)


@pytest.mark.slow
def test_old_runs_but_not_those_that_versions_come_from(tracked: str, tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    client = tracker.client
    tracker.experiment = client.create_experiment("pruned")

    def run(days: float, parent: str = "", original: str = "") -> str:
        tags = {name: value for name, value in {PARENT: parent, ORIGINAL: original}.items() if value}
        return run_of(client, tracker.experiment, days, **tags)

    trained_in = run(50)
    trained, dropped = run(50, trained_in), run(50, trained_in)
    pipeline = run(40)
    registered, member = run(40, pipeline), run(40, pipeline, original=trained)
    young, old = run(3), run(40)
    opened = run_of(client, tracker.experiment, 400, **{KIND: opening.KIND})
    open_still = client.create_run(tracker.experiment, start_time=1).info.run_id
    versions = [SimpleNamespace(run_id=registered, tags={})]
    found = old_runs(tracker, versions, 30)
    assert {one.info.run_id for one in found} == {old, dropped}
    remove_runs(tracker, found, pytest.fail)
    left = {one.info.run_id for one in client.search_runs([tracker.experiment])}
    assert left == {trained_in, trained, pipeline, registered, member, young, opened, open_still}


def test_a_run_goes_with_its_artefacts_and_takes_nothing_else_along(
    tracked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What others have deleted in the same store stays theirs to restore, and a kill in between is made up for."""
    tracker = Tracker(tmp_path)
    client = tracker.client
    foreign = client.create_experiment("foreign")
    within = client.create_run(foreign).info.run_id
    client.delete_experiment(foreign)
    tracker.experiment = client.create_experiment("emptied", (tmp_path / "artefacts").as_uri())
    old, other = (run_of(client, tracker.experiment, 40) for _ in range(2))
    for run in (old, other):
        client.log_text(run, "a picture", "picture.txt")

    def found() -> list[Any]:
        return [run for run in old_runs(tracker, [], 30) if run.info.run_id == old]

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore._hard_delete_run", killed)
        with pytest.raises(KeyboardInterrupt):
            remove_runs(tracker, found(), pytest.fail)
    remove_runs(tracker, found(), pytest.fail)
    assert found() == []
    assert [path.parent.parent.name for path in (tmp_path / "artefacts").rglob("picture.txt")] == [other]
    client.restore_experiment(foreign)
    assert client.get_run(within).info.status == "RUNNING"


def killed(*_: object) -> None:
    raise KeyboardInterrupt
