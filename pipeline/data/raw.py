"""The raw snapshot of a source: image bytes concatenated into shards, and an index of them.

A folder of a million small files would cost DVC gigabytes of memory; a few shards cost it nothing. Everything is
streamed: neither writing nor reading holds more than one image.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from pipeline.errors import ChorusError
from pipeline.files import read_json, replacing, write_text

SCHEMA = 1
SHARD_BYTES = 64 * 2**20


@dataclass(frozen=True)
class RawImage:
    """One image as its source has it: an encoded file (shape None), or raw uint8 pixels of H×W or H×W×3.

    id: the file's name relative to the source's folder, or the image's number in a named source.
    """

    id: str
    label: str | None
    data: bytes
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class RawFacts:
    """What a raw snapshot holds; classes: names in the order of their labels, or None; rejected: files not taken."""

    source: str
    classes: tuple[str, ...] | None
    images: int
    rejected: int


class JsonLines:
    """A file of JSON objects, one a line, in ASCII: names that are not Unicode survive as escapes."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.count = file, 0

    def add(self, **fields: Any) -> None:
        self.file.write((json.dumps(fields) + "\n").encode("ascii"))
        self.count += 1


@contextmanager
def json_lines(path: Path) -> Iterator[JsonLines]:
    """Write a file of JSON lines as a stream, whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        yield JsonLines(file)


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read JSON lines one by one; raises `ChorusError` where the file is missing or damaged."""
    try:
        with path.open(encoding="ascii") as file:
            for line in file:
                yield json.loads(line)
    except (OSError, ValueError) as error:
        raise ChorusError(f"{path} cannot be read ({error}); run `dvc repro`") from None


class RawWriter:
    """Writes a raw snapshot into an empty folder; a context manager, complete once `finish` has been called."""

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder, self.shard_bytes = folder, shard_bytes
        self._files, self._shard_file = ExitStack(), ExitStack()
        self._shard, self._offset = -1, 0

    def __enter__(self) -> Self:
        self._index = self._files.enter_context(json_lines(self.folder / "index.jsonl"))
        self._rejected = self._files.enter_context(json_lines(self.folder / "rejected.jsonl"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shard_file.__exit__(kind, error, trace)
        self._files.__exit__(kind, error, trace)

    @property
    def images(self) -> int:
        return self._index.count

    @property
    def rejected(self) -> int:
        return self._rejected.count

    def add(self, image: RawImage) -> None:
        """Append one image, which must not be larger than a shard."""
        if self._shard < 0 or self._offset + len(image.data) > self.shard_bytes:
            self._next_shard()
        self._file.write(image.data)
        shape = {} if image.shape is None else {"shape": image.shape}
        place = {"shard": self._shard, "offset": self._offset, "length": len(image.data)}
        self._index.add(id=image.id, label=image.label, **place, **shape)
        self._offset += len(image.data)

    def reject(self, name: str, reason: str) -> None:
        """Record a file that was not taken, and why."""
        self._rejected.add(id=name, reason=reason)

    def finish(self, source: str, classes: Sequence[str] | None) -> None:
        """Close all files, then write the facts that make the snapshot valid."""
        self._shard_file.close()
        self._files.close()
        facts = {"source": source, "classes": classes, "images": self._index.count, "rejected": self._rejected.count}
        # In ASCII like the index, for a folder's name need not be Unicode.
        write_text(self.folder / "source.json", json.dumps({"schema": SCHEMA, **facts}, indent=2) + "\n")

    def _next_shard(self) -> None:
        self._shard_file.close()
        self._shard, self._offset = self._shard + 1, 0
        path = self._shard_file.enter_context(replacing(_shard_path(self.folder, self._shard)))
        self._file = self._shard_file.enter_context(path.open("wb"))


def read_facts(folder: Path) -> RawFacts:
    """Return what a raw snapshot holds; raises `ChorusError` where it is missing, incomplete or of another schema."""
    content = read_json(folder / "source.json")
    if content.get("schema") != SCHEMA:
        raise ChorusError(f"{folder} has schema {content.get('schema')}, this code reads {SCHEMA}; run `dvc repro`")
    classes = None if content["classes"] is None else tuple(content["classes"])
    return RawFacts(content["source"], classes, content["images"], content["rejected"])


def read_raw(folder: Path) -> Iterator[RawImage]:
    """Yield a snapshot's images in the order in which they were added; raises `ChorusError` where it is damaged."""
    with ExitStack() as shard_file:
        opened, file, count = -1, None, 0
        for line in read_json_lines(folder / "index.jsonl"):
            path = _shard_path(folder, line["shard"])
            try:
                if file is None or line["shard"] != opened:
                    shard_file.close()
                    opened, file = line["shard"], shard_file.enter_context(path.open("rb"))
                file.seek(line["offset"])
                data = file.read(line["length"])
            except OSError as error:
                raise ChorusError(f"{path} cannot be read ({error}); run `dvc repro`") from None
            if len(data) != line["length"]:
                raise ChorusError(f"{path} is shorter than its index says; remove {folder} and run `dvc repro`")
            yield RawImage(line["id"], line["label"], data, tuple(line["shape"]) if "shape" in line else None)
            count += 1
    if count != (said := read_facts(folder).images):
        raise ChorusError(f"{folder} lists {count:,} of its {said:,} images; remove it and run `dvc repro`")


def read_rejected(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the name of each file that was not taken, and the reason."""
    for line in read_json_lines(folder / "rejected.jsonl"):
        yield line["id"], line["reason"]


def _shard_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.bin"
