"""`python -m pipeline sample`: many images of a model in a folder, whatever interrupts it."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import registry
from pipeline.__main__ import main
from pipeline.exits import NO_ROOM
from pipeline.files import read_json
from pipeline.fusion.samplers import draw
from pipeline.recipes import load_sampler
from pipeline.stages.sample import AT_ONCE
from tests.factories_fused import CONFIG, write_fused

N = 2 * AT_ONCE + 50


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like `models/chosen`, of members that know two classes."""
    folder = tmp_path_factory.mktemp("model") / "chosen"
    write_fused(folder, config=replace(CONFIG, class_shares=(0.25, 0.75)))
    return folder


def ask(model: Path | str, out: Path, n: int = 10, *more: str) -> int:
    return main(["sample", "--model", str(model), "--n", str(n), "--out", str(out), *more])


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All images of a draw, written at once."""
    out = tmp_path_factory.mktemp("whole")
    assert ask(model, out, N, "--seed", "3") == 0
    return out


def test_images_are_the_samplers(model: Path, whole: Path) -> None:
    sampler = load_sampler(read_json(model / "recipe.json")["recipe"], (model / "members").joinpath)
    expected = draw(sampler, N, seed=3)[:, 0].numpy()
    found = np.stack([np.asarray(Image.open(whole / f"{number:08}.png")) for number in range(N)])
    # Batches of another size may differ in the last bit of the arithmetic.
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert (found != expected).mean() < 0.001
    assert len(list(whole.iterdir())) == N + 1


def test_the_same_bytes_after_a_kill_and_a_restart(model: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pipeline", "sample", "--model", str(model), "--out", str(out)]
    process = subprocess.Popen([*command, "--n", str(N), "--seed", "3"])
    end = time.monotonic() + 60
    while not (out / f"{AT_ONCE + 20:08}.png").exists() and time.monotonic() < end:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = len(list(out.glob("*.png")))
    assert AT_ONCE < there < N
    kept = (out / "00000000.png").stat().st_mtime_ns
    (out / ".00000300.png.0a1b2c3d.tmp").write_bytes(b"half")
    assert ask(model, out, N, "--seed", "3") == 0
    assert content(out) == content(whole)
    assert (out / "00000000.png").stat().st_mtime_ns == kept


def test_a_longer_draw_completes_a_shorter_one_and_fills_gaps(
    model: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert ask(model, out, AT_ONCE + 7, "--seed", "3") == 0
    (out / "00000005.png").unlink()
    assert ask(model, out, N, "--seed", "3") == 0
    assert content(out) == content(whole)
    before = (out / "00000000.png").stat().st_mtime_ns
    assert ask(model, out, N, "--seed", "3") == 0
    assert (out / "00000000.png").stat().st_mtime_ns == before
    assert f"{N} of {N} images are there already" in capsys.readouterr().out


def test_a_class_can_be_asked_for(model: Path, tmp_path: Path) -> None:
    sampler = load_sampler(read_json(model / "recipe.json")["recipe"], (model / "members").joinpath)
    assert ask(model, tmp_path / "ones", 5, "--label", "1") == 0
    expected = draw(sampler, 5, seed=0, labels=torch.ones(5, dtype=torch.int64))[:, 0].numpy()
    found = [np.asarray(Image.open(tmp_path / "ones" / f"{number:08}.png")) for number in range(5)]
    assert np.array_equal(np.stack(found), expected)


def test_what_is_wrong_is_said_and_nothing_is_written(
    model: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign, file, other = tmp_path / "foreign", tmp_path / "file", tmp_path / "other"
    foreign.mkdir()
    (foreign / "a.png").write_bytes(b"mine")
    (foreign / ".mine.tmp").write_bytes(b"mine")
    file.write_bytes(b"mine")
    write_fused(other, seed=5, config=replace(CONFIG, class_shares=(0.25, 0.75)))
    evil = tmp_path / "evil"
    shutil.copytree(model, evil)
    record = json.loads((evil / "recipe.json").read_text())
    record["recipe"]["parts"][0]["id"] = "../../../etc"
    (evil / "recipe.json").write_text(json.dumps(record))
    strange = {"no-key": "{}", "no-kind": '{"recipe": {}}', "list": "[]", "kind": '{"recipe": {"kind": "x"}}'}
    for name, text in strange.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.json").write_text(text)
    before = content(whole)
    for arguments, words in [
        ((tmp_path / "nothing", tmp_path / "a"), "is no model: name models:/NAME@ALIAS"),
        (("models:/chorus/latest", tmp_path / "a"), "has no registry"),
        ((evil, tmp_path / "a"), "names '../../../etc', which is not the id"),
        *(((tmp_path / name, tmp_path / "a"), "no recipe of Chorus") for name in ("no-key", "no-kind", "list")),
        ((tmp_path / "kind", tmp_path / "a"), "kind"),
        ((model, tmp_path / "a", 5, "--label", "2"), "label 2 does not exist: this model knows the classes 0 to 1"),
        ((model, foreign), "holds no images of this command"),
        ((model, file), "cannot be a folder of images"),
        ((model, whole, N), "holds images of seed 3"),
        ((model, whole, N, "--seed", "3", "--label", "1"), "holds images of label -1"),
        ((other, whole, N, "--seed", "3"), f"holds images of another model than {other}"),
        ((model, whole, 5, "--seed", "3"), f"holds {N} images of this draw already"),
    ]:
        assert ask(*arguments) == 2, words
        assert words in capsys.readouterr().err
    assert content(whole) == before
    assert content(foreign) == {"a.png": b"mine", ".mine.tmp": b"mine"}
    assert not list((tmp_path / "a").glob("*"))
    for n in ("0", "-3", "many"):
        with pytest.raises(SystemExit, match="2"):
            main(["sample", "--model", str(model), "--n", n, "--out", str(tmp_path / "a")])
    for label in ("-2", "one", str(2**63)):
        with pytest.raises(SystemExit, match="2"):
            ask(model, tmp_path / "a", 5, "--label", label)


def test_two_processes_do_not_write_to_one_folder(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:

    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    assert ask(model, tmp_path) == 2
    assert "another process is writing to" in capsys.readouterr().err
    os.close(folder)
    assert ask(model, tmp_path) == 0


FULL = """
import resource, sys
from pipeline.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
sys.exit(main(["sample", "--model", sys.argv[1], "--n", "3", "--out", sys.argv[2]]))
"""


def test_a_full_disk_is_no_bad_input(model: Path, tmp_path: Path) -> None:
    with registry.packed(model) as (content, _):
        package = registry.write_candidate(content, tmp_path)
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", FULL, str(package), str(out)], capture_output=True, text=True)
    assert done.returncode == NO_ROOM, done.stderr
    assert "there is no room to write" in done.stderr
    assert not list(out.iterdir())
