"""Files written whole or not at all, and hashes of what they hold."""

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ChorusError

if TYPE_CHECKING:
    import numpy as np

# What a process that was killed leaves behind; the number is its id.
TEMPORARY = re.compile(r"^\..+\.(\d+)-[0-9a-f]{8}\.tmp$")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success fsync it and rename it to `path`, on failure remove it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write `content` to `path` as UTF-8, whole or not at all."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON (keys in their order, NaN refused), whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; raises `ChorusError` naming the file where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ChorusError(f"{path} is missing; run the stage that writes it, or `dvc repro`") from None
    except ValueError as error:
        raise ChorusError(f"{path} is not JSON ({error}); remove it and run `dvc repro`") from None


def read_record(path: Path) -> dict[str, Any]:
    """Read a JSON object that something else does without, empty where it is missing or damaged."""
    try:
        content = read_json(path)
    except ChorusError:
        return {}
    return content if isinstance(content, dict) else {}


def write_array(path: Path, array: "np.ndarray") -> None:
    """Write a numpy array as `.npy`, whole or not at all."""
    import numpy as np

    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def read_array(path: Path) -> "np.ndarray":
    """Memory-map a `.npy` array; raises `ChorusError` naming the file where it is missing or damaged."""
    import numpy as np

    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ChorusError(f"{path} is missing; run `dvc repro`") from None
    except (OSError, ValueError, EOFError) as error:
        raise ChorusError(f"{path} is not a numpy array ({error}); remove it and run `dvc repro`") from None
    return array


def remove_tree(folder: Path) -> None:
    """Remove a folder at once: under another, hidden name first, so that a kill leaves no half of it to be trusted."""
    removed = folder.with_name(f".{folder.name}.removed")
    shutil.rmtree(removed, ignore_errors=True)
    if folder.exists():
        folder.replace(removed)
        shutil.rmtree(removed)


def replace_tree(source: Path, target: Path) -> None:
    """Put the folder `source` in the place of whatever `target` held."""
    remove_tree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(source, target)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_hash(folder: Path, without: Collection[str] = ()) -> str:
    """Return a SHA-256 over the relative names and contents of all files below `folder` but those named `without`.

    Hidden files (temporary ones, `.gitignore`) do not count, nor does Python's bytecode: they are no content.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        if path.parent.name == "__pycache__" or path.name in without:
            continue
        digest.update(f"{path.relative_to(folder).as_posix()}\x00{file_hash(path)}\n".encode())
    return digest.hexdigest()


def copy_snapshot(source: Path, target: Path, networks: Iterable[str]) -> None:
    """Copy a snapshot's configuration and some of its networks; raises `ChorusError` where one is missing."""
    target.mkdir(parents=True, exist_ok=True)
    for name in ["config.json", *(f"{network}.safetensors" for network in sorted(networks))]:
        if not (source / name).is_file():
            raise ChorusError(f"{source / name} is missing though the recipe needs it; run `dvc repro`")
        shutil.copyfile(source / name, target / name)
