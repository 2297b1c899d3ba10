"""Named sources: the embedded digits, published files that are already there, and what is said where they are not."""

import gzip
import hashlib
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from pipeline.data.raw import RawWriter, read_raw
from pipeline.data.sources import cifar_images, ingest_named, read_arrays, verify
from pipeline.errors import ChorusError, PassingError
from pipeline.files import file_hash
from tests.published import PUBLISHED, needs_published


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send every request to a port where nobody answers."""
    monkeypatch.setattr("urllib.request._opener", None)  # which keeps the proxies that it first met
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)


def test_digits(tmp_path: Path) -> None:
    with RawWriter(tmp_path) as raw:
        classes = ingest_named("digits", tmp_path / "nowhere", raw)
        raw.finish("digits", classes)
    assert classes == list("0123456789")
    images = list(read_raw(tmp_path))
    published = load_digits()
    assert len(images) == 1797
    assert [image.label for image in images] == [str(label) for label in published.target]
    pixels = np.stack([np.frombuffer(image.data, np.uint8).reshape(8, 8) for image in images])
    assert (pixels.min(), pixels.max()) == (0, 255)
    np.testing.assert_allclose(pixels / 255, published.images / 16, atol=0.5 / 255)


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        ("mnist", r"put train-images-idx3-ubyte \(or train-images-idx3-ubyte\.gz\), .* into .*MNIST/raw"),
        ("fashion-mnist", r"put .*t10k-labels-idx1-ubyte\.gz\) into .*FashionMNIST/raw"),
        ("cifar10", r"put cifar-10-python\.tar\.gz \(SHA-256 6d958be0\w+\)"),
    ],
)
def test_without_files_and_network_the_remedy_is_named(source: str, remedy: str, tmp_path: Path) -> None:
    with RawWriter(tmp_path / "raw") as raw, pytest.raises(ChorusError, match=f"cannot be downloaded .*{remedy}"):
        ingest_named(source, tmp_path / "root", raw)


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("source", ["mnist", "cifar10"])
def test_a_folder_that_cannot_be_made_does_not_pass_as_a_network_that_is_away_can(source: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root, kind in ((tmp_path / "file", ChorusError), (tmp_path / "root", PassingError)):
        with RawWriter(tmp_path / "raw") as raw, pytest.raises(ChorusError, match="cannot be downloaded") as caught:
            ingest_named(source, root, raw)
        assert type(caught.value) is kind


def test_a_file_that_is_not_the_published_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(ChorusError, match="file is missing"):
        verify(path, "0")
    path.write_bytes(b"content")
    verify(path, hashlib.sha256(b"content").hexdigest())
    with pytest.raises(ChorusError, match="not the published file"):
        verify(path, "0")


def small_cifar(root: Path) -> tuple[dict[str, str], np.ndarray]:
    """Write two batches in CIFAR-10's layout; return their checksums and the pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    rows = pixels.transpose(0, 3, 1, 2).reshape(6, -1)
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, content in {
        "data_batch_1": {"data": rows[:4], "labels": [0, 1, 1, 0]},
        "test_batch": {"data": rows[4:], "labels": [1, 0]},
        "batches.meta": {"label_names": ["airplane", "automobile"]},
    }.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return {path.name: file_hash(path) for path in sorted(folder.iterdir())}, pixels


def test_cifar_takes_both_parts(tmp_path: Path) -> None:
    checksums, pixels = small_cifar(tmp_path / "root")
    with RawWriter(tmp_path / "raw") as raw:
        assert cifar_images(tmp_path / "root", raw, checksums) == ["airplane", "automobile"]
        raw.finish("cifar10", None)
    images = list(read_raw(tmp_path / "raw"))
    assert [image.id for image in images] == ["train/0", "train/1", "train/2", "train/3", "test/0", "test/1"]
    assert [image.label for image in images[3:]] == ["airplane", "automobile", "airplane"]
    for image, expected in zip(images, pixels, strict=True):
        assert image.shape == (32, 32, 3)
        assert image.data == expected.tobytes()


def test_a_damaged_cifar_is_not_opened(tmp_path: Path) -> None:
    checksums, _ = small_cifar(tmp_path / "root")
    batch = tmp_path / "root" / "cifar-10-batches-py" / "data_batch_1"
    batch.write_bytes(pickle.dumps(Harmful(tmp_path / "made")))
    with RawWriter(tmp_path / "raw") as raw, pytest.raises(ChorusError, match="data_batch_1 is not the published file"):
        cifar_images(tmp_path / "root", raw, checksums)
    assert not (tmp_path / "made").exists()


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickles_give_arrays_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    for protocol in (2, 4):
        path.write_bytes(pickle.dumps({"data": np.arange(3), "labels": [1]}, protocol=protocol))
        assert read_arrays(path)["data"].tolist() == [0, 1, 2]
    path.write_bytes(pickle.dumps({"data": Harmful(tmp_path / "made")}))
    with pytest.raises(ChorusError, match=r"holds more than arrays.*posix\.mkdir"):
        read_arrays(path)
    assert not (tmp_path / "made").exists()
    path.write_bytes(b"")
    with pytest.raises(ChorusError, match="or is damaged"):
        read_arrays(path)


@pytest.mark.usefixtures("_no_network")
def test_a_cifar_archive_that_is_not_the_published_one_is_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "cifar-10-python.tar.gz").write_bytes(gzip.compress(b"other content"))
    with RawWriter(tmp_path / "raw") as raw, pytest.raises(ChorusError, match="put cifar-10-python"):
        ingest_named("cifar10", tmp_path / "root", raw)
    assert not (tmp_path / "root" / "cifar-10-batches-py").exists()


@needs_published
@pytest.mark.parametrize(("source", "name"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_damaged_idx_files_are_named(source: str, name: str, tmp_path: Path) -> None:
    folder = tmp_path / name / "raw"
    shutil.copytree(PUBLISHED / name / "raw", folder)
    with (folder / "t10k-labels-idx1-ubyte").open("r+b") as file:
        file.truncate(5000)
    with RawWriter(tmp_path / "raw") as raw, pytest.raises(ChorusError, match="t10k-labels-idx1-ubyte is not the publ"):
        ingest_named(source, tmp_path, raw)


@pytest.mark.slow
@needs_published
@pytest.mark.usefixtures("_no_network")
def test_fashion_mnist_from_its_files(tmp_path: Path) -> None:
    with RawWriter(tmp_path) as raw:
        classes = ingest_named("fashion-mnist", PUBLISHED, raw)
        raw.finish("fashion-mnist", classes)
    images = list(read_raw(tmp_path))
    assert len(images) == 70_000
    assert (images[0].label, images[60_000].label) == ("Ankle boot", "Ankle boot")
    assert {image.shape for image in images} == {(28, 28)}


@pytest.mark.usefixtures("_no_network")
def test_an_archive_that_is_not_the_published_one_is_not_unpacked(tmp_path: Path) -> None:
    folder = tmp_path / "root" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"other content"))
    with RawWriter(tmp_path / "raw") as raw, pytest.raises(ChorusError, match="cannot be downloaded"):
        ingest_named("mnist", tmp_path / "root", raw)
    assert not (folder / "train-images-idx3-ubyte").exists()
