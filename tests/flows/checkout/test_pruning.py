"""What is pruned, and what never is."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from flows.checkout import pruning
from flows.checkout.exclusive import alone
from flows.prune import main
from pipeline.lineage import NOT_OF_THE_MODEL, entries_hash, lock_entries
from pipeline.params import parse_params
from pipeline.tracking import PARENT, Tracker
from tests.stub_checkout import PARAMS, call, dvc

LONG_AGO = 40 * pruning.DAY


def aged(path: Path, seconds: float = LONG_AGO) -> Path:
    """Make a folder with a file, both last written so long ago."""
    path.mkdir(parents=True)
    (path / "checkpoint.safetensors").write_bytes(b"x")
    for one in (path / "checkpoint.safetensors", path):
        os.utime(one, (time.time() - seconds,) * 2)
    return path


def test_old_checkpoints(tmp_path: Path) -> None:
    pinned, other = "a" * 64, "b" * 64
    start = f"{{source: champion, version: '1', content: {pinned}}}"
    params = parse_params(PARAMS.replace("kimg: 1}", f"kimg: 1, warm_start: {start}}}"))
    old, _ = aged(tmp_path / ".checkpoints/x/r0/old"), aged(tmp_path / ".checkpoints/x/r0/new", seconds=60)
    gone = aged(tmp_path / ".checkpoints/gone/r0/old")
    for folder in (gone.parent, gone.parent.parent):
        os.utime(folder, (time.time() - LONG_AGO,) * 2)
    aged(tmp_path / ".checkpoints/gone-just-now/r0/new", seconds=60)
    aged(tmp_path / ".warm" / pinned)
    aged(tmp_path / ".warm" / ("c" * 64), seconds=60)
    forgotten = aged(tmp_path / ".warm" / other)
    assert pruning.old_checkpoints(tmp_path, params, 30) == [tmp_path / ".checkpoints/gone", old, forgotten]


def version(**tags: str) -> Any:
    return SimpleNamespace(run_id="", tags={f"chorus.{name}": value for name, value in tags.items()})


def commit(root: Path, text: str) -> str:
    """Let the first stage run on other images and commit what it made; return the commit."""
    (root / "source.txt").write_text(text)
    dvc(root, "repro", "-q", "ingest")
    call(root, "git", "add", "-f", "source.txt", "dvc.lock")
    call(root, "git", "commit", "-qm", text)
    return call(root, "git", "rev-parse", "HEAD").strip()


def path_of(root: Path, oid: str) -> Path:
    """Where DVC's cache has an object."""
    return root / ".dvc" / "cache" / "files" / "md5" / oid[:2] / oid[2:]


def age(root: Path) -> None:
    """Let all objects of DVC's cache be old."""
    for oid in cached(root):
        os.utime(path_of(root, oid), (time.time() - LONG_AGO,) * 2)


def outputs(root: Path) -> set[str]:
    stages = yaml.safe_load((root / "dvc.lock").read_text())["stages"]
    return {out["md5"] for entry in stages.values() for out in entry["outs"]}


def cached(root: Path) -> set[str]:
    files = root / ".dvc" / "cache" / "files" / "md5"
    return {path.parent.name + path.name for path in files.glob("??/*")}


@pytest.mark.slow
def test_the_cache_keeps_what_the_checkout_and_registered_versions_were_made_of(done: Path) -> None:
    commit(done, "forgotten")
    forgotten = outputs(done)
    before = commit(done, "images")
    made = commit(done, "registered")
    registered, lock = outputs(done), entries_hash(lock_entries(done, NOT_OF_THE_MODEL))
    commit(done, "latest")
    # A run begins with the commit before the one of its results; only their lock entries tell.
    commits = pruning.commits_of_versions(done, [version(commit=before, lock=lock), version(commit="f" * 40)])
    assert commits == sorted([before, made])
    there = cached(done)
    used = pruning.used_objects(done, commits)
    assert pruning.collect_cache(done, used, 30, dry=True) == 0
    age(done)
    assert pruning.collect_cache(done, used, 30, dry=True) > 0
    assert cached(done) == there
    pruning.collect_cache(done, used, 30, dry=False)
    assert cached(done) >= registered | outputs(done)
    assert not cached(done) & (forgotten - registered - outputs(done))


def test_young_objects_stay_and_what_young_folders_list(done: Path) -> None:
    """A folder that was put together anew from old files is as young as its list."""
    added = {}
    for name in ("young", "old"):
        (done / name).mkdir()
        (done / name / "file").write_text(name)
        dvc(done, "add", "-q", name)
        record = done / f"{name}.dvc"
        added[name] = yaml.safe_load(record.read_text())["outs"][0]["md5"]
        record.unlink()
    listed = {name: json.loads(path_of(done, oid).read_text())[0]["md5"] for name, oid in added.items()}
    age(done)
    os.utime(path_of(done, added["young"]))
    assert pruning.collect_cache(done, pruning.used_objects(done, []), 30, dry=False) == 2
    assert cached(done) == {added["young"], listed["young"], *outputs(done)}


def run_of(client: MlflowClient, experiment: str, days: float, **tags: str) -> str:
    """Make a run that ended so many days ago."""
    then = int((time.time() - days * pruning.DAY) * 1000)
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
        tags = {name: value for name, value in {PARENT: parent, pruning.ORIGINAL: original}.items() if value}
        return run_of(client, tracker.experiment, days, **tags)

    trained_in = run(50)
    trained, dropped = run(50, trained_in), run(50, trained_in)
    pipeline = run(40)
    registered, member = run(40, pipeline), run(40, pipeline, original=trained)
    young, old = run(3), run(40)
    open_still = client.create_run(tracker.experiment, start_time=1).info.run_id
    versions = [SimpleNamespace(run_id=registered, tags={})]
    found = pruning.old_runs(tracker, versions, 30)
    assert {one.info.run_id for one in found} == {old, dropped}
    pruning.remove_runs(tracker, found, pytest.fail)
    left = {one.info.run_id for one in client.search_runs([tracker.experiment])}
    assert left == {trained_in, trained, pipeline, registered, member, young, open_still}


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
        return [run for run in pruning.old_runs(tracker, [], 30) if run.info.run_id == old]

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore._hard_delete_run", killed)
        with pytest.raises(KeyboardInterrupt):
            pruning.remove_runs(tracker, found(), pytest.fail)
    pruning.remove_runs(tracker, found(), pytest.fail)
    assert found() == []
    assert [path.parent.parent.name for path in (tmp_path / "artefacts").rglob("picture.txt")] == [other]
    client.restore_experiment(foreign)
    assert client.get_run(within).info.status == "RUNNING"


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_command(
    done: Path, tracked: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([]) == 2
    monkeypatch.chdir(done)
    with alone(done, "refuse", print):
        assert main([]) == 2
    assert main(["--days", "-1"]) == 2
    old = aged(done / ".checkpoints/gone", seconds=20_000 * pruning.DAY)
    capsys.readouterr()
    assert main(["--dry-run"]) == 0
    assert "would remove .checkpoints/gone\n" in capsys.readouterr().out
    assert old.is_dir()
    assert main(["--days", "10000"]) == 0
    assert not old.exists()
    assert "kept are younger ones and those of the checkout and of 0 commits" in capsys.readouterr().out


def test_a_worktree_that_cannot_be_read_stops_before_anything_is_removed(
    here: Path, tracked: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    old = aged(here / ".checkpoints/gone")
    call(here, "git", "worktree", "add", "-q", str(tmp_path / "other"))
    (tmp_path / "other" / "dvc.yaml").write_text("stages: [")
    assert main([]) == 2
    assert f"what {tmp_path / 'other'} needs of DVC's cache cannot be told" in capsys.readouterr().err
    assert old.is_dir()
