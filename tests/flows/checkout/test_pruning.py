"""What is pruned, and what never is."""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from flows.checkout import pruning
from flows.checkout.exclusive import alone
from flows.prune import main
from pipeline.lineage import NOT_OF_THE_MODEL, entries_hash, lock_entries
from pipeline.params import parse_params
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


def test_experiments_go_with_what_they_alone_had_in_the_cache(here: Path, tracked: str, tmp_path: Path) -> None:
    oids = {}
    for name in ("old", "young"):
        folder = here / ".chorus" / "experiments" / name
        call(here, "git", "worktree", "add", "-q", "--detach", str(folder))
        dvc(folder, "cache", "dir", "--local", str(here / ".dvc" / "cache"))
        (folder / "source.txt").write_text(name)
        dvc(folder, "repro", "-q", "ingest")
        (oids[name],) = outputs(folder) - outputs(here)
        (folder / "link").symlink_to(here / "nothing")
    age(here)
    old = here / ".chorus" / "experiments" / "old"
    for path in [old, *old.rglob("*")]:
        os.utime(path, (time.time() - LONG_AGO,) * 2, follow_symlinks=False)
    left = aged(here / ".chorus" / "removed")  # by a kill in the middle
    assert main(["--days", "30"]) == 0
    assert not old.exists()
    assert not left.exists()
    assert str(old) not in call(here, "git", "worktree", "list")
    assert cached(here) & set(oids.values()) == {oids["young"]}


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
