"""Prepared data sets on disk: written in memory that stays flat, opened without being read."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.dataset import SPLITS, load_split, read_manifest
from pipeline.data.preview import preview
from pipeline.data.split_writer import SplitWriter
from pipeline.errors import ChorusError
from tests.factories import write_prepared


def test_labelled(tmp_path: Path) -> None:
    train = write_prepared(tmp_path, n_train=30, size=16, channels=3, classes=["x", "y"])
    assert train.images.shape == (30, 3, 16, 16)
    assert isinstance(train.images, np.memmap)
    assert not train.images.flags.writeable
    assert train.labels is not None
    assert np.bincount(train.labels).tolist() == read_manifest(tmp_path)["class_counts"]["train"] == [15, 15]
    assert {split: len(load_split(tmp_path, split)) for split in SPLITS} == read_manifest(tmp_path)["counts"]


def test_unlabelled(tmp_path: Path) -> None:
    assert write_prepared(tmp_path, classes=None).labels is None
    manifest = read_manifest(tmp_path)
    assert manifest["classes"] is manifest["class_counts"] is None


def test_the_hash_follows_the_content(tmp_path: Path) -> None:
    hashes = []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_prepared(tmp_path / folder, seed=seed)
        hashes.append(read_manifest(tmp_path / folder)["hash"])
    assert hashes[0] == hashes[1] != hashes[2]


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    write_prepared(tmp_path)
    with pytest.raises(ChorusError, match="there is no split 'dev'; the splits are train, val, gate, test"):
        load_split(tmp_path, "dev")
    np.save(tmp_path / "val.npy", np.zeros((3, 1, 8, 8), np.uint8))
    with pytest.raises(
        ChorusError, match=r"val\.npy holds uint8 \(3, 1, 8, 8\), its manifest says uint8 \(96, 1, 8, 8\)"
    ):
        load_split(tmp_path, "val")
    (tmp_path / "val.npy").write_bytes(b"")
    with pytest.raises(ChorusError, match=r"val\.npy is not a numpy array"):
        load_split(tmp_path, "val")


def test_arrays_of_objects_are_not_unpickled(tmp_path: Path) -> None:
    write_prepared(tmp_path)
    np.save(tmp_path / "val_labels.npy", np.array([{}] * 96, dtype=object), allow_pickle=True)
    with pytest.raises(ChorusError, match=r"val_labels\.npy is not a numpy array"):
        load_split(tmp_path, "val")


@pytest.mark.parametrize("content", ["[]", "{}", json.dumps({"schema": 2})])
def test_another_schema(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ChorusError, match="this code reads 1"):
        read_manifest(tmp_path)


def test_rows_come_in_the_order_of_their_hashes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (50, 3, 4, 4), dtype=np.uint8)
    digests = [random.bytes(16) for _ in images]
    with SplitWriter(tmp_path, "train", (3, 4, 4), labelled=True) as writer:
        for number, (digest, image) in enumerate(zip(digests, images, strict=True)):
            writer.add(digest, image, number)
        writer.finish()
    order = sorted(range(50), key=digests.__getitem__)
    np.testing.assert_array_equal(np.load(tmp_path / "train.npy"), images[order])
    np.testing.assert_array_equal(np.load(tmp_path / "train_labels.npy"), order)


def test_an_unfinished_split_leaves_nothing(tmp_path: Path) -> None:
    with SplitWriter(tmp_path, "train", (1, 2, 2), labelled=False) as writer:
        writer.add(bytes(16), np.zeros((1, 2, 2), np.uint8), 0)
    assert not list(tmp_path.iterdir())


def test_a_row_of_another_shape_is_refused(tmp_path: Path) -> None:
    with SplitWriter(tmp_path, "train", (1, 2, 2), labelled=False) as writer, pytest.raises(ValueError, match="fit"):
        writer.add(bytes(16), np.zeros((2, 2), np.uint8), 0)


@pytest.mark.parametrize("n", [1, 5, 64, 300])
@pytest.mark.parametrize(("channels", "classes"), [(1, None), (3, ["a", "a name that is much too long for a tile"])])
def test_the_preview_shows_the_images(tmp_path: Path, n: int, channels: int, classes: list[str] | None) -> None:
    train = write_prepared(tmp_path, n_train=n, channels=channels, classes=classes)
    grid = preview(train, classes)
    assert grid.width == 8 * 68 + 4
    shown = np.asarray(grid)[4:68:8, 4:68:8].transpose(2, 0, 1)
    np.testing.assert_array_equal(shown, np.broadcast_to(train.images[0], (3, 8, 8)))
