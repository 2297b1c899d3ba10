"""Reasons to start a run: each is found once, and nothing happens without one."""

import os
from pathlib import Path
from typing import Any

import pytest

from flows.checkout.exclusive import alone
from flows.checkout.upstream import update
from flows.service.triggers import mark, new_commit, new_data
from pipeline.errors import ChorusError
from pipeline.project import Project
from tests.stub_checkout import call, dvc


def test_changed_data_are_one_reason_until_they_are_read(done: Path) -> None:
    project = Project.load(done)
    assert new_data(project, 0) is None
    (done / "source.txt").write_text("other images")
    found = new_data(project, 0)
    assert found is not None
    assert found.why == "source.txt has changed"
    assert new_data(project, 0) == found
    (done / "source.txt").write_text("images")
    assert new_data(project, 0) is None
    (done / "source.txt").write_text("other images")
    os.utime(done / "dvc.lock")  # something has run in between
    again = new_data(project, 0)
    assert again is not None
    assert again.key != found.key


def test_a_folder_that_is_being_filled_is_left_in_peace(fresh: Path) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        (fresh / name).write_text((fresh / name).read_text().replace("source.txt", "images"))
    project = Project.load(fresh)
    with pytest.raises(ChorusError, match=r"data\.watch: .*images' does not exist"):
        new_data(project, 0)
    (fresh / "images" / "new").mkdir(parents=True)
    (fresh / "images" / "new" / "1.png").write_text("1")
    os.utime(fresh / "images" / "new" / "1.png", (0, 0))  # as copies that keep their times
    assert new_data(project, 60) is None
    found = new_data(project, 0)
    assert found is not None
    assert found.why == "images has changed"


def test_the_mark_changes_the_watched_file_and_nothing_but_its_line(done: Path) -> None:
    project = Project.load(done)
    (done / "source.txt").write_text("# my images\n")
    mark(project, "drift-a")
    mark(project, "drift-b")
    assert (done / "source.txt").read_text() == "# my images\nimages: drift-b\n"


@pytest.fixture
def clone(done: Path, tmp_path: Path) -> Path:
    """A clone of a checkout, which follows it."""
    call(done, "git", "add", "-f", "dvc.lock")
    call(done, "git", "commit", "-qm", "Lock")
    call(tmp_path, "git", "clone", "-q", str(done), "clone")
    call(tmp_path / "clone", "git", "config", "user.name", "Tester")
    call(tmp_path / "clone", "git", "config", "user.email", "tester@example.org")
    return tmp_path / "clone"


def test_a_commit_upstream_is_found_and_taken_over(done: Path, clone: Path) -> None:
    project = Project.load(clone)
    assert new_commit(project) is None
    (done / "params.yaml").write_text((done / "params.yaml").read_text().replace("lr: 0.1", "lr: 0.3"))
    call(done, "git", "commit", "-qam", "Learn faster")
    found = new_commit(project)
    assert found is not None
    assert found.parameters == {"update": True}
    assert found.key.removeprefix("upstream-") == call(done, "git", "rev-parse", "HEAD").strip()
    said: list[str] = []
    assert update(clone, said.append).params.families["x"].lr == 0.3
    assert said[0].endswith("Learn faster")
    assert new_commit(project) is None


def test_what_a_remote_that_was_away_did_not_bring_comes_the_next_time(done: Path, clone: Path, tmp_path: Path) -> None:
    for root in (done, clone):
        # Nothing listens there, which DVC takes for a remote that lacks everything.
        dvc(root, "remote", "add", "-q", "--local", "--default", "there", "http://127.0.0.1:9/remote")
    (done / "source.txt").write_text("other images")
    dvc(done, "repro", "-q")
    call(done, "git", "commit", "-qam", "Other images")
    said: list[str] = []
    update(clone, said.append)
    assert not (clone / "registered.txt").exists()
    for root in (done, clone):
        dvc(root, "remote", "modify", "-q", "--local", "there", "url", str(tmp_path / "remote"))
    dvc(done, "push", "-q")
    update(clone, said.append)
    assert (clone / "registered.txt").read_text() == (done / "registered.txt").read_text()
    assert len(said) == 1


def test_branches_that_went_different_ways_are_left_to_people(done: Path, clone: Path) -> None:
    for root in (done, clone):
        (root / "notes.txt").write_text(str(root))
        call(root, "git", "add", "notes.txt")
        call(root, "git", "commit", "-qm", "Notes")
    with pytest.raises(ChorusError, match="git merge: "):
        update(clone, pytest.fail)
    with pytest.raises(ChorusError, match="has no upstream; say which it follows"):
        new_commit(Project.load(done))


def test_one_reason_starts_one_run(done: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.client.orchestration import get_client
    from prefect.states import Completed

    from flows.nightly import nightly
    from flows.watch import watch

    monkeypatch.chdir(done)
    assert looked(watch).name == "Nothing new"
    (done / "source.txt").write_text("other images")
    unknown = looked(watch, deployment="nightly/unknown")
    assert unknown.is_failed()
    assert "python -m flows.deploy" in unknown.message
    nightly.to_deployment("once").apply()
    messages = [looked(watch, deployment="nightly/once").message for _ in range(2)]
    assert messages[0] == messages[1]
    with get_client(sync_client=True) as client:
        started = [run for run in client.read_flow_runs() if "triggered" in run.tags]
    assert len(started) == 1
    assert messages[0] == f"source.txt has changed: run {started[0].name}"
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(started[0].id, Completed(name="Skipped"), force=True)
    messages = [looked(watch, deployment="nightly/once").message for _ in range(2)]
    assert messages[0] == messages[1] != f"source.txt has changed: run {started[0].name}"
    (done / "source.txt").write_text("still others")
    with alone(done, "refuse", pytest.fail):
        assert looked(watch, deployment="nightly/once").name == "Busy"
    assert looked(watch, deployment="nightly/once").name == "Completed"


def looked(watch: Any, **options: Any) -> Any:
    return watch(**options, quiet_seconds=0, return_state=True)
