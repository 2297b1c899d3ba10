"""Named sources: published data sets, all their images taken together, for the splits are our own."""

import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.raw import RawImage, RawWriter
from pipeline.errors import ChorusError, PassingError
from pipeline.exits import is_full
from pipeline.files import file_hash

DEFAULT_ROOT = Path("~/.cache/chorus")
NETWORK_TIMEOUT = 60.0  # seconds without an answer
# What is wrong with the folder to download into; those of a network come as URLError or ConnectionError.
OF_THE_FOLDER = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)

# SHA-256 of the published files as they lie there after extraction.
MNIST_FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
FASHION_MNIST_FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
CIFAR10_FILES = {
    "data_batch_1": "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
    "data_batch_2": "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
    "data_batch_3": "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
    "data_batch_4": "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
    "data_batch_5": "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
    "test_batch": "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831",
    "batches.meta": "f962466ef690d46b226450fb9aadc74ba4bc64a76aa526b5827fe4bc5c7125cb",
}
CIFAR10_ARCHIVE = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"


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
    return cifar_images(root, raw, CIFAR10_FILES)


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
        verify(folder / name, checksum)
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images = reader.read_image_file(folder / f"{prefix}-images-idx3-ubyte").numpy()
        labels = reader.read_label_file(folder / f"{prefix}-labels-idx1-ubyte").numpy()
        _add(raw, part, images, labels, dataset.classes)
    return list(dataset.classes)


def cifar_images(root: Path, raw: RawWriter, checksums: dict[str, str]) -> list[str]:
    """Add the images of CIFAR-10's Python version, which are published as pickles; checksums: SHA-256 by file.

    They are read by an unpickler that makes arrays and plain values alone, and not before their checksums matched.
    """
    published = _torchvision_datasets().CIFAR10
    folder = root / published.base_folder
    if not all((folder / name).is_file() for name in checksums):
        _extract_cifar(published, root)
    for name, checksum in checksums.items():
        verify(folder / name, checksum)
    classes = list(read_arrays(folder / published.meta["filename"])[published.meta["key"]])
    for part, prefix in (("train", "data_batch"), ("test", "test_batch")):
        batches = [read_arrays(folder / name) for name in checksums if name.startswith(prefix)]
        pixels = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        _add(raw, part, pixels, [label for batch in batches for label in batch["labels"]], classes)
    return classes


def _extract_cifar(published: Any, root: Path) -> None:
    from torchvision.datasets import utils

    archive = root / published.filename
    what = f"{published.filename} (SHA-256 {CIFAR10_ARCHIVE})"
    with _downloading(f"put {what}, or what it holds, {published.base_folder}, into {root}"):
        utils.download_url(published.url, root, published.filename, published.tgz_md5)
        verify(archive, CIFAR10_ARCHIVE)
        utils.extract_archive(str(archive), str(root))


class _ArraysOnly(pickle.Unpickler):
    """Makes arrays and plain values; a pickle that asks for anything else is refused."""

    ALLOWED = frozenset(
        {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("_codecs", "encode"),  # bytes, as Python 3 writes them for older readers
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def read_arrays(path: Path) -> dict[str, Any]:
    """Read a pickled dictionary of arrays and plain values; raises `ChorusError` for one with anything else in it."""
    try:
        with path.open("rb") as file:
            content: dict[str, Any] = _ArraysOnly(file, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError) as error:
        raise ChorusError(f"{path} holds more than arrays, or is damaged ({error}): it was not opened") from None
    return content


def verify(path: Path, expected: str) -> None:
    """Raise `ChorusError` unless `path` is there and has the published SHA-256."""
    if not path.is_file():
        raise ChorusError(f"{path} is missing; put the published file there")
    found = file_hash(path)
    if found != expected:
        raise ChorusError(
            f"{path} is not the published file: its SHA-256 is {found}, not {expected}; remove or replace it"
        )


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
        if is_full(error):
            raise
        # torchvision tells of servers that do not answer by the second, without the cause.
        passing = getattr(error, "code", 500) >= 500 if isinstance(error, OSError) else "downloading" in str(error)
        passing &= not isinstance(error, OF_THE_FOLDER)
        kind = PassingError if passing else ChorusError
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise kind(f"the data set is not there and cannot be downloaded ({reason}); {remedy}") from None
    finally:
        socket.setdefaulttimeout(before)


SOURCES: dict[str, Callable[[Path, RawWriter], list[str]]] = {
    "digits": _digits,
    "mnist": _mnist,
    "fashion-mnist": _fashion_mnist,
    "cifar10": _cifar10,
}
