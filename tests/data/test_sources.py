"""Named sources: the embedded digits, published files that are already there, and what is said where they are not."""

import gzip
import hashlib
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from pipeline._torchvision import allow_torchvision
from pipeline.data.raw import RawWriter, read_raw
from pipeline.data.sources import cifar_images, ingest_named, verify_md5
from pipeline.errors import ChorusError
from tests.published import PUBLISHED, needs_published


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send every request to a port where nobody answers."""
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
        ("cifar10", r"put cifar-10-python\.tar\.gz \(MD5 c58f30108f718f92721af3b95e74349a\)"),
    ],
)
def test_without_files_and_network_the_remedy_is_named(source: str, remedy: str, tmp_path: Path) -> None:
    with RawWriter(tmp_path / "raw") as raw, pytest.raises(ChorusError, match=f"cannot be downloaded .*{remedy}"):
        ingest_named(source, tmp_path / "root", raw)


def test_a_file_that_is_not_the_published_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(ChorusError, match="file is missing"):
        verify_md5(path, "0")
    path.write_bytes(b"content")
    verify_md5(path, hashlib.md5(b"content").hexdigest())
    with pytest.raises(ChorusError, match="not the published file"):
        verify_md5(path, "0")


def small_cifar(root: Path) -> tuple[Any, np.ndarray]:
    """Write two batches in CIFAR-10's layout; return torchvision's class with their checksums, and the pixels."""
    allow_torchvision()
    from torchvision.datasets import CIFAR10

    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)

    def write(name: str, content: object) -> tuple[str, str]:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return name, hashlib.md5(data).hexdigest()

    rows = pixels.transpose(0, 3, 1, 2).reshape(6, -1)
    batch = write("data_batch_1", {"data": rows[:4], "labels": [0, 1, 1, 0]})
    test = write("test_batch", {"data": rows[4:], "labels": [1, 0]})
    names, checksum = write("batches.meta", {"label_names": ["airplane", "automobile"]})
    meta = {"filename": names, "key": "label_names", "md5": checksum}
    return type("SmallCIFAR", (CIFAR10,), {"train_list": [batch], "test_list": [test], "meta": meta}), pixels


def test_cifar_takes_both_parts(tmp_path: Path) -> None:
    dataset, pixels = small_cifar(tmp_path / "root")
    with RawWriter(tmp_path / "raw") as raw:
        assert cifar_images(dataset, tmp_path / "root", raw) == ["airplane", "automobile"]
        raw.finish("cifar10", None)
    images = list(read_raw(tmp_path / "raw"))
    assert [image.id for image in images] == ["train/0", "train/1", "train/2", "train/3", "test/0", "test/1"]
    assert [image.label for image in images[3:]] == ["airplane", "automobile", "airplane"]
    for image, expected in zip(images, pixels, strict=True):
        assert image.shape == (32, 32, 3)
        assert image.data == expected.tobytes()


@pytest.mark.usefixtures("_no_network")
def test_a_damaged_cifar_is_not_opened(tmp_path: Path) -> None:
    dataset, _ = small_cifar(tmp_path / "root")
    batch = tmp_path / "root" / dataset.base_folder / "data_batch_1"
    batch.write_bytes(batch.read_bytes()[:-1] + b"x")
    with RawWriter(tmp_path / "raw") as raw, pytest.raises(ChorusError, match=r"put cifar-10-python\.tar\.gz"):
        cifar_images(dataset, tmp_path / "root", raw)


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
