"""From a source to four splits on disk."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data.dataset import SPLITS, load_split, read_manifest
from pipeline.data.decode import decode, to_array
from pipeline.data.splits import pixel_hash, split_of
from pipeline.errors import ChorusError
from pipeline.files import tree_hash
from pipeline.params import Params
from pipeline.project import Project
from pipeline.stages import ingest, prepare
from tests.data.make_messy_folder import draw, encoded, make_messy_folder
from tests.published import PUBLISHED, needs_published


def project(where: Path, images: Path | None = None, **data: Any) -> Project:
    """Return a project in `where` whose source is the folder `images`, or the digits."""
    source: dict[str, Any] = {"source": "digits", "watch": "sentinel"}
    if images is not None:
        source = {"source": "folder", "root": str(images), "watch": str(images)}
    content = {"data": {**source, "size": 8, **data}, "families": {"any": {"architecture": "mlp", "kimg": 1}}}
    where.mkdir(parents=True, exist_ok=True)
    return Project(where, Params.model_validate(content))


def run(where: Project) -> dict[str, Any]:
    ingest.run(where)
    prepare.run(where)
    return read_manifest(where.prepared)


def quarantined(where: Project) -> dict[str, str]:
    lines = (where.prepared / "quarantine.jsonl").read_text().splitlines()
    return {line["id"]: line["reason"] for line in map(json.loads, lines)}


def fill(folder: Path, n: int, seed: int = 0, side: int = 12) -> list[Image.Image]:
    """Write n images as PNG files and return them."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    images = [draw(random, side) for _ in range(n)]
    for number, image in enumerate(images):
        image.save(folder / f"{seed}-{number:03d}.png")
    return images


def pixels(where: Project) -> dict[str, set[bytes]]:
    return {split: {row.tobytes() for row in load_split(where.prepared, split).images} for split in SPLITS}


def test_digits(tmp_path: Path) -> None:
    where = project(tmp_path)
    manifest = run(where)
    assert manifest["classes"] == list("0123456789")
    assert sum(manifest["counts"].values()) == 1797
    assert manifest["duplicates"] == manifest["quarantined"] == 0
    for split, share in where.params.data.splits.model_dump().items():
        assert abs(manifest["counts"][split] / 1797 - share) < 0.03
        loaded = load_split(where.prepared, split)
        assert loaded.labels is not None
        assert loaded.images.shape == (len(loaded.labels), 1, 8, 8)
        assert np.bincount(loaded.labels, minlength=10).tolist() == manifest["class_counts"][split]
    assert sorted(path.name for path in where.prepared.iterdir()) == sorted(
        [f"{split}.npy" for split in SPLITS]
        + [f"{split}_labels.npy" for split in SPLITS]
        + ["manifest.json", "preview.png", "quarantine.jsonl"]
    )


def test_the_same_source_gives_the_same_files(tmp_path: Path) -> None:
    make_messy_folder(tmp_path / "images", 120)
    hashes = []
    for name in ("a", "b"):
        where = project(tmp_path / name, tmp_path / "images")
        run(where)
        hashes.append((tree_hash(where.raw), tree_hash(where.prepared)))
    assert hashes[0] == hashes[1]


def test_a_messy_folder(tmp_path: Path) -> None:
    broken = make_messy_folder(tmp_path / "images", 200, broken=0.05, duplicates=0.03)
    where = project(tmp_path / "project", tmp_path / "images", size=16, channels=3)
    manifest = run(where)
    assert manifest["classes"] is None
    assert manifest["quarantined"] == broken == 10
    assert manifest["duplicates"] == 6
    assert sum(manifest["counts"].values()) == 200 - 10 - 6
    assert all(int(name[:5]) < broken for name in quarantined(where))
    assert not list(where.prepared.glob("*_labels.npy"))


def test_each_image_is_where_its_hash_says_and_as_it_should_be(tmp_path: Path) -> None:
    images = fill(tmp_path / "images", 60)
    where = project(tmp_path / "project", tmp_path / "images", channels=3)
    run(where)
    expected: dict[str, set[bytes]] = {split: set() for split in SPLITS}
    for image in images:
        expected[split_of(pixel_hash(image), where.params.data.splits)].add(to_array(image, 8, 3).tobytes())
    assert pixels(where) == expected


def test_adding_and_renaming_images_moves_none(tmp_path: Path) -> None:
    fill(tmp_path / "images", 60)
    where = project(tmp_path / "project", tmp_path / "images", channels=3)
    run(where)
    before = pixels(where)
    fill(tmp_path / "images", 40, seed=1)
    (tmp_path / "images" / "0-000.png").rename(tmp_path / "images" / "zebra.png")
    run(where)
    after = pixels(where)
    assert sum(map(len, after.values())) == 100
    assert all(before[split] <= after[split] for split in SPLITS)


def test_another_size_moves_none(tmp_path: Path) -> None:
    fill(tmp_path / "images", 60, side=16)
    counts = []
    for size in (8, 16):
        where = project(tmp_path / str(size), tmp_path / "images", size=size)
        counts.append(run(where)["counts"])
    assert counts[0] == counts[1]


def test_files_in_another_format_and_order_give_the_same_data(tmp_path: Path) -> None:
    images = fill(tmp_path / "png", 50)
    (tmp_path / "bmp").mkdir()
    for number, image in enumerate(reversed(images)):
        image.save(tmp_path / "bmp" / f"{number}.bmp")
    hashes = [run(project(tmp_path / f"of-{name}", tmp_path / name))["hash"] for name in ("png", "bmp")]
    assert hashes[0] == hashes[1]


def test_classes_and_duplicates_between_them(tmp_path: Path) -> None:
    images = fill(tmp_path / "images" / "cat", 40)
    fill(tmp_path / "images" / "dog", 40, seed=1)
    images[0].save(tmp_path / "images" / "dog" / "a-cat.png")
    where = project(tmp_path / "project", tmp_path / "images", channels=3)
    manifest = run(where)
    assert manifest["classes"] == ["cat", "dog"]
    assert manifest["duplicates"] == 1
    assert np.sum([manifest["class_counts"][split] for split in SPLITS], axis=0).tolist() == [40, 40]
    cats = {to_array(image, 8, 3).tobytes() for image in images}
    for split in SPLITS:
        loaded = load_split(where.prepared, split)
        assert loaded.labels is not None
        for row, label in zip(loaded.images, loaded.labels, strict=True):
            assert (row.tobytes() in cats) == (label == 0)


def test_a_class_name_that_is_no_unicode(tmp_path: Path) -> None:
    fill(tmp_path / "images" / os.fsdecode(b"caf\xe9"), 30)
    fill(tmp_path / "images" / "tea", 30, seed=1)
    assert run(project(tmp_path / "project", tmp_path / "images"))["classes"] == ["caf\\xe9", "tea"]


def test_too_many_bad_images(tmp_path: Path) -> None:
    fill(tmp_path / "images", 50)
    for number in range(5):
        (tmp_path / "images" / f"bad-{number}.png").write_bytes(b"no")
    where = project(tmp_path / "project", tmp_path / "images")
    ingest.run(where)
    with pytest.raises(ChorusError) as caught:
        prepare.run(where)
    message = str(caught.value)
    assert "5 of 55 images cannot be used (9.1%, data.max_bad_fraction allows 5.0%)" in message
    assert message.count("not a readable PNG") == 3
    assert "repair or remove these files, or raise data.max_bad_fraction" in message
    assert len(quarantined(where)) == 5
    with pytest.raises(ChorusError, match=r"manifest\.json is missing"):
        load_split(where.prepared, "train")
    assert run(project(tmp_path / "project", tmp_path / "images", max_bad_fraction=0.1))["quarantined"] == 5


def test_oversized_images_are_quarantined(tmp_path: Path) -> None:
    fill(tmp_path / "images", 50)
    draw(np.random.default_rng(5), 40).save(tmp_path / "images" / "large.png")
    where = project(tmp_path / "project", tmp_path / "images", max_pixels=400)
    run(where)
    assert quarantined(where) == {"large.png": "40×40 pixels, more than data.max_pixels = 400"}


def test_too_few_images(tmp_path: Path) -> None:
    fill(tmp_path / "images", 2)
    where = project(tmp_path / "project", tmp_path / "images")
    with pytest.raises(ChorusError, match=r"too few images for four splits: train \d, .*; add images, or raise data\."):
        run(where)


def test_another_source_leaves_nothing_of_the_last_one(tmp_path: Path) -> None:
    run(project(tmp_path / "project"))
    fill(tmp_path / "images", 50)
    where = project(tmp_path / "project", tmp_path / "images")
    with pytest.raises(ChorusError, match=r"holds 'digits', data\.source is 'folder'"):
        prepare.run(where)
    run(where)
    assert not list(where.prepared.glob("*_labels.npy"))


def test_a_source_in_our_own_output_is_refused(tmp_path: Path) -> None:
    inside = tmp_path / "data" / "raw" / "images"
    fill(inside, 3)
    with pytest.raises(ChorusError, match="lie in each other"):
        ingest.run(project(tmp_path, inside))
    with pytest.raises(ChorusError, match="lie in each other"):
        ingest.run(project(tmp_path, tmp_path))
    assert len(list(inside.iterdir())) == 3


def test_without_a_snapshot(tmp_path: Path) -> None:
    with pytest.raises(ChorusError, match=r"source\.json is missing"):
        prepare.run(project(tmp_path))


def test_what_is_watched_is_said_when_it_is_not_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "images", 3)
    ingest.run(project(tmp_path / "project", tmp_path / "images"))
    assert "data.watch" not in capsys.readouterr().out
    ingest.run(project(tmp_path / "project", tmp_path / "images", watch="sentinel"))
    assert "data.watch" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stage", "kind"), [("ingest", signal.SIGTERM), ("prepare", signal.SIGTERM), ("prepare", signal.SIGKILL)]
)
def test_a_killed_stage_leaves_whole_files_and_runs_again(tmp_path: Path, stage: str, kind: signal.Signals) -> None:
    fill(tmp_path / "images", 1, side=800)
    original = next((tmp_path / "images").iterdir())
    for number in range(60):
        shutil.copy(original, tmp_path / "images" / f"{number}.png")
    fill(tmp_path / "images", 60, seed=2)
    where = project(tmp_path / "project", tmp_path / "images")
    (where.root / "params.yaml").write_text(json.dumps(where.params.model_dump(mode="json", by_alias=True)))
    ingest.run(where)
    made = {"ingest": where.raw, "prepare": where.prepared}[stage]
    shutil.rmtree(made, ignore_errors=True)
    process = subprocess.Popen([sys.executable, "-m", "pipeline", stage], cwd=where.root)
    while not made.exists() and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(kind)
    process.wait()
    left = {path.name for path in made.iterdir()}
    # On a busy machine the stage may have ended before the signal came.
    if process.returncode:
        assert process.returncode in (143, -signal.SIGKILL)
        assert not left & {"source.json", "manifest.json"}
    if kind == signal.SIGTERM:
        assert not [name for name in left if name.startswith(".")]
    for path in made.glob("*.npy"):
        np.load(path)
    assert sum(run(where)["counts"].values()) == 61
    assert not [path for path in [*where.raw.iterdir(), *where.prepared.iterdir()] if path.name.startswith(".")]


def test_progress_is_printed_for_long_work_only(capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.data.progress import with_progress

    assert list(with_progress(range(3), "prepare", 3)) == [0, 1, 2]
    assert not capsys.readouterr().out
    list(with_progress(range(3), "prepare", 3, every=0.0))
    assert "prepare  2/3 images  " in capsys.readouterr().out


@pytest.mark.slow
@needs_published
def test_fashion_mnist(tmp_path: Path) -> None:
    where = project(tmp_path, source="fashion-mnist", root=str(PUBLISHED), size=28)
    manifest = run(where)
    assert manifest["classes"][0] == "T-shirt/top"
    assert sum(manifest["counts"].values()) + manifest["duplicates"] == 70_000
    assert manifest["quarantined"] == 0
    assert abs(manifest["counts"]["train"] - 35_000) < 500


def test_the_written_rows_are_the_decoded_files(tmp_path: Path) -> None:
    make_messy_folder(tmp_path / "images", 80, broken=0, duplicates=0)
    where = project(tmp_path / "project", tmp_path / "images", size=32, channels=3)
    run(where)
    files = [path for path in (tmp_path / "images").iterdir() if not path.name.startswith(".")]
    expected = {to_array(decode(path.read_bytes(), 10_000), 32, 3).tobytes() for path in files}
    assert set.union(*pixels(where).values()) == expected


def test_raw_is_a_few_files_whatever_the_number_of_images(tmp_path: Path) -> None:
    fill(tmp_path / "images", 200)
    where = project(tmp_path / "project", tmp_path / "images")
    run(where)
    assert len(list(where.raw.iterdir())) == 4
    assert encoded(draw(np.random.default_rng(0), 12), "PNG") in (where.raw / "shard-00000.bin").read_bytes()
