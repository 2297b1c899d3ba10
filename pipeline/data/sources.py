"""Named sources: published data sets, all their images taken together, for the splits are our own."""

import hashlib
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.raw import RawImage, RawWriter
from pipeline.errors import ChorusError

DEFAULT_ROOT = Path("~/.cache/chorus")
NETWORK_TIMEOUT = 60.0  # seconds without an answer

# MD5 of the extracted files; torchvision knows the archives' only.
MNIST_FILES = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
FASHION_MNIST_FILES = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}


def ingest_named(source: str, root: Path, raw: RawWriter) -> list[str]:
    """Add a named source's images to `raw` and return its class names in the order of the published labels.

    root: folder that holds torchvision's layout; files that lie there are used without a network, others are
    downloaded into it. Raises `ChorusError` for files that are missing or damaged, and says which to put where.
    """
    return SOURCES[source](root, raw)


def _digits(_root: Path, raw: RawWriter) -> list[str]:
    """scikit-learn's handwritten digits, embedded in the library: 1,797 images of 8×8, values 0..16."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    classes = [str(name) for name in digits.target_names]
    _add(raw, "digits", pixels, digits.target, classes)
    return classes


def _mnist(root: Path, raw: RawWriter) -> list[str]:
    return _idx_files(_torchvision_datasets().MNIST, MNIST_FILES, root, raw)


def _fashion_mnist(root: Path, raw: RawWriter) -> list[str]:
    return _idx_files(_torchvision_datasets().FashionMNIST, FASHION_MNIST_FILES, root, raw)


def _cifar10(root: Path, raw: RawWriter) -> list[str]:
    return cifar_images(_torchvision_datasets().CIFAR10, root, raw)


def _torchvision_datasets() -> Any:
    """Import torchvision only where it is needed: with torch it takes some 200 MB of memory."""
    from pipeline._torchvision import allow_torchvision

    allow_torchvision()
    import torchvision.datasets

    return torchvision.datasets


def _idx_files(dataset: Any, checksums: dict[str, str], root: Path, raw: RawWriter) -> list[str]:
    """Add the images of a torchvision data set that is kept as idx files."""
    reader = _torchvision_datasets().mnist
    folder = root / dataset.__name__ / "raw"
    if not all((folder / name).is_file() for name in checksums):
        files = ", ".join(f"{name} (or {name}.gz)" for name in checksums)
        with _downloading(f"put {files} into {folder}"):
            dataset(root, download=True)
    for name, checksum in checksums.items():
        verify_md5(folder / name, checksum)
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images = reader.read_image_file(folder / f"{prefix}-images-idx3-ubyte").numpy()
        labels = reader.read_label_file(folder / f"{prefix}-labels-idx1-ubyte").numpy()
        _add(raw, part, images, labels, dataset.classes)
    return list(dataset.classes)


def cifar_images(dataset: Any, root: Path, raw: RawWriter) -> list[str]:
    """Add the images of torchvision's `CIFAR10` or a subclass of it.

    Its files are pickles; torchvision opens them only after their checksums have been found to be the published ones.
    """
    remedy = f"put {dataset.filename} (MD5 {dataset.tgz_md5}), or what it holds, {dataset.base_folder}, into {root}"
    classes: list[str] = []
    for part in ("train", "test"):
        with _downloading(remedy):
            content = dataset(root, train=part == "train", download=True)
        classes = list(content.classes)
        _add(raw, part, content.data, content.targets, classes)
    return classes


def verify_md5(path: Path, expected: str) -> None:
    """Raise `ChorusError` unless `path` is there and has the published MD5."""
    if not path.is_file():
        raise ChorusError(f"{path} is missing; put the published file there")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != expected:
        raise ChorusError(f"{path} is not the published file: its MD5 is {found}, not {expected}; remove or replace it")


def _add(raw: RawWriter, part: str, images: np.ndarray, labels: Sequence[int], classes: Sequence[str]) -> None:
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        raw.add(RawImage(f"{part}/{number}", classes[int(label)], image.tobytes(), image.shape))


@contextmanager
def _downloading(remedy: str) -> Iterator[None]:
    """Turn what torchvision raises when it cannot download into one message that ends with the remedy."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT)
    try:
        yield
    except (OSError, RuntimeError, EOFError) as error:  # URLError and timeouts are OSErrors
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise ChorusError(f"the data set is not there and cannot be downloaded ({reason}); {remedy}") from None
    finally:
        socket.setdefaulttimeout(before)


SOURCES: dict[str, Callable[[Path, RawWriter], list[str]]] = {
    "digits": _digits,
    "mnist": _mnist,
    "fashion-mnist": _fashion_mnist,
    "cifar10": _cifar10,
}
