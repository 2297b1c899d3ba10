"""One split's arrays, written row by row in memory that does not grow with the images."""

import os
import tempfile
from array import array
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.lib.format as npy

from pipeline.files import replacing, write_array


class SplitWriter:
    """Takes a split's images as they come and writes its arrays in the order of their hashes.

    That order is as good as shuffled: any stretch of the rows is a fair sample, also where the source is sorted by
    class, and it is the same whatever the files are called. A context manager; nothing is left behind without `finish`.
    """

    def __init__(self, prepared: Path, split: str, shape: tuple[int, int, int], labelled: bool) -> None:
        """shape: channels, height and width of each image; labelled: whether to write `SPLIT_labels.npy` as well."""
        self.prepared, self.split, self.shape, self.labelled = prepared, split, shape, labelled
        self._open = ExitStack()
        self._digests, self._labels = bytearray(), array("q")

    def __enter__(self) -> Self:
        self.prepared.mkdir(parents=True, exist_ok=True)
        # On the disk of the result, for it is as large; it has no name, so that it goes with the process.
        self._rows = self._open.enter_context(tempfile.TemporaryFile(dir=self.prepared))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def __len__(self) -> int:
        return len(self._labels)

    def add(self, digest: bytes, image: np.ndarray, label: int) -> None:
        """Take one image (uint8, of the writer's shape), its 16-byte hash, and its label (any where there are none)."""
        if image.shape != self.shape or image.dtype != np.uint8:
            raise ValueError(f"{image.dtype} {image.shape} does not fit into rows of uint8 {self.shape}")
        self._rows.write(image.tobytes())
        self._digests += digest
        self._labels.append(label)

    def finish(self) -> None:
        """Write `SPLIT.npy` and, with labels, `SPLIT_labels.npy`."""
        order = np.argsort(np.frombuffer(self._digests, dtype="S16"))
        length = int(np.prod(self.shape))
        self._rows.flush()
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(self), *self.shape)}
        with replacing(self.prepared / f"{self.split}.npy") as temporary, temporary.open("wb") as file:
            npy.write_array_header_1_0(file, header)
            for row in order.tolist():
                file.write(os.pread(self._rows.fileno(), length, row * length))
        if self.labelled:
            labels = np.frombuffer(self._labels, dtype=np.int64)[order]
            write_array(self.prepared / f"{self.split}_labels.npy", labels)
