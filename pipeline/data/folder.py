"""The user's own folder of images: class sub-folders, or all images directly inside."""

import hashlib
import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.raw import SHARD_BYTES, RawImage, RawWriter
from pipeline.errors import ChorusError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF")
LARGEST_FILE = SHARD_BYTES


class _RejectedError(Exception):
    """A file that is not taken; the message is the reason."""


@dataclass(frozen=True)
class _Entry:
    """Something found in the folder; reason: why it is not even opened, or None for a file to read."""

    path: Path
    name: str
    reason: str | None = None


def ingest_folder(root: Path, raw: RawWriter) -> list[str] | None:
    """Add the images below `root` to `raw` and return the class names, or None where there are no classes.

    A class is a folder directly in `root`, with everything below it; a single such folder makes no classes. Files are
    taken in the order of their names. Hidden files and folders are passed over. What is no image by name or content,
    larger than 64 MiB, unreadable or linked from outside is rejected with its reason; whether the others can be
    decoded is for the prepare stage to say. Raises `ChorusError` where `root` is missing, holds no image, or holds
    images both directly and in sub-folders.
    """
    if not root.is_dir():
        raise ChorusError(f"data.root: there is no folder {str(root)!r}; name the folder of your images")
    flat: str | None = None
    classes: dict[str, str] = {}
    for entry in _walk(root, root.resolve()):
        try:
            data = _read(entry)
        except _RejectedError as rejected:
            raw.reject(entry.name, str(rejected))
            continue
        top, _, below = entry.name.partition("/")
        if below:
            classes.setdefault(top, entry.name)
        else:
            flat = flat or entry.name
        if flat and classes:
            raise ChorusError(
                f"data.root: {str(root)!r} holds images both directly ({flat!r}) and in sub-folders "
                f"({next(iter(classes.values()))!r}); keep all of them directly inside, or all in one folder a class"
            )
        raw.add(RawImage(entry.name, top if below else None, data))
    if not raw.images:
        raise ChorusError(f"data.root: {str(root)!r} holds no image (of {', '.join(e[1:] for e in EXTENSIONS)})")
    return sorted(classes) if len(classes) > 1 else None


def unread(root: Path, seen: Collection[str]) -> Iterator[bytes]:
    """Yield the bytes of the files below `root` that `ingest_folder` would take and whose names are not among `seen`.

    They come in the order of their names' hashes, so that the first ones are a random sample.
    """
    if not root.is_dir():
        raise ChorusError(f"data.root: there is no folder {str(root)!r}; name the folder of your images")
    found = [entry for entry in _walk(root, root.resolve()) if entry.name not in seen]
    for entry in sorted(found, key=lambda entry: hashlib.sha256(os.fsencode(entry.name)).digest()):
        with suppress(_RejectedError):
            yield _read(entry)


def _walk(folder: Path, root: Path, prefix: str = "") -> Iterator[_Entry]:
    """Yield what is below `folder`, hidden names left out, in the order of names; links to folders are not followed."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((e.name, e.is_dir(follow_symlinks=False)) for e in entries if not e.name.startswith("."))
    except OSError as error:
        yield _Entry(folder, prefix.rstrip("/") or ".", f"cannot be read: {error.strerror}")
        return
    for name, is_folder in found:
        path = folder / name
        if is_folder:
            yield from _walk(path, root, f"{prefix}{name}/")
        else:
            yield _Entry(path, prefix + name, _link_problem(path, root) if path.is_symlink() else None)


def _link_problem(link: Path, root: Path) -> str | None:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return "a link that leads nowhere"
    if not target.is_relative_to(root):
        return "a link that leaves the folder; such links are not followed"
    return "a link to a folder; such links are not followed" if target.is_dir() else None


def _read(entry: _Entry) -> bytes:
    """Return a file's bytes; raises `_RejectedError` for what is no image or too large, without reading it whole."""
    if entry.reason is not None:
        raise _RejectedError(entry.reason)
    try:
        if not entry.path.is_file():
            raise _RejectedError("not a regular file")
        with entry.path.open("rb") as file:
            start = file.read(16)
            if not start:
                raise _RejectedError("an empty file")
            if not start.startswith(SIGNATURES) and not entry.name.lower().endswith(EXTENSIONS):
                raise _RejectedError("not a PNG, JPEG, WebP, BMP or GIF file")
            size = os.fstat(file.fileno()).st_size
            if size > LARGEST_FILE:
                limit = LARGEST_FILE // 2**20
                raise _RejectedError(f"{size / 2**20:,.0f} MiB on disk; files of up to {limit} MiB are taken")
            return start + file.read(max(size - len(start), 0))
    except OSError as error:
        raise _RejectedError(f"cannot be read: {error.strerror}") from None
