"""Damaged files of DVC's cache: DVC would restore them, for it trusts what is read-only."""

from pathlib import Path

import yaml

from flows.checkout.cache import mend_cache
from flows.planning.graph import read_graph
from tests.stub_checkout import dvc


def cached(root: Path, output: str) -> Path:
    """Return the file of DVC's cache that holds an output."""
    entries = yaml.safe_load((root / "dvc.lock").read_text())["stages"].values()
    (md5,) = {out["md5"] for entry in entries for out in entry["outs"] if out["path"] == output}
    return root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def overwrite(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)


def test_a_damaged_file_is_dropped_and_a_lost_output_made_anew(done: Path) -> None:
    made = (done / "model-x.txt").read_bytes()
    (done / "model-x.txt").unlink()
    overwrite(cached(done, "model-x.txt"), made[:-3])
    assert read_graph(done).stages["train@x"].cached
    said: list[str] = []
    mend_cache(done, said.append)
    assert said == ["DVC's cache had 1 damaged files: they are made anew when they are needed"]
    assert not read_graph(done).stages["train@x"].cached
    dvc(done, "repro")
    assert (done / "model-x.txt").read_bytes() == made


def test_the_checkouts_own_copy_takes_its_place(done: Path) -> None:
    made = (done / "model-y.txt").read_bytes()
    overwrite(cached(done, "model-y.txt"), b"")
    said: list[str] = []
    mend_cache(done, said.append)
    assert "model-y.txt are filled again from the checkout" in said[0]
    assert cached(done, "model-y.txt").read_bytes() == made
    assert dvc(done, "status", "--json").strip() == "{}"


def test_a_sound_cache_is_left_alone(done: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (done / ".dvc/cache").rglob("*")}
    said: list[str] = []
    mend_cache(done, said.append)
    assert said == []
    assert before == {path: path.stat().st_mtime_ns for path in (done / ".dvc/cache").rglob("*")}
