"""Write images of a model into a folder: a command, no stage of DVC. What a kill interrupts goes on where it was."""

import fcntl
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.progress import with_progress
from pipeline.errors import ChorusError
from pipeline.evaluation.pictures import write_png
from pipeline.exits import lasts
from pipeline.files import read_json, write_json
from pipeline.stages._shipped import Shipped, opened

SCHEMA = 1
RECORD = "sample.json"
AT_ONCE = 256  # images drawn together, always the same ones, so that their last bits do not depend on where one resumed
WRITERS = 8  # threads, for a file that is written safely mostly waits for the disk


def run(root: Path, address: str, n: int, out: Path, seed: int, label: int) -> None:
    """Write images 0 to n - 1 of a model's stream of `seed` as `out`/NUMBER.png, and `sample.json` with what they are.

    label: the class of all of them, -1 for any. A folder that holds images of the same draw is completed, also by a
    larger `n`, and ends with the same bytes as one that is written at once on the same machine. Raises `ChorusError`
    for a folder that holds anything else, and what `opened` raises.
    """
    with opened(address, root) as model, alone(out):
        record = {"schema": SCHEMA, "content": model.content, "seed": seed, "label": label, "n": n}
        known = examine(out, record, model)
        todo = [first for first in range(0, n, AT_ONCE) if not known or not complete(out, first, n)]
        missing = sum(min(AT_ONCE, n - first) for first in todo)
        if missing < n:
            print(f"sample  {n - missing:,} of {n:,} images are there already", flush=True)

        def write(number: int, image: np.ndarray) -> None:
            write_png(path_of(out, number), image.squeeze(2) if image.shape[2] == 1 else image)

        def written() -> Iterator[None]:
            for first in todo:
                images = model.draw(first, min(AT_ONCE, n - first), seed, label)
                if first == todo[0]:  # a label that the model does not know has not come this far
                    write_json(out / RECORD, record)
                yield from pool.map(write, range(first, n), images)

        try:
            with ThreadPoolExecutor(WRITERS) as pool:
                for _ in with_progress(written(), "sample", total=missing):
                    pass
        except OSError as error:
            if not lasts(error):
                raise
            raise ChorusError(f"{out} cannot be written to: {error}") from None
    print(f"sample  {n:,} images of {model.name}, seed {seed}: {out}", flush=True)


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Make the folder and keep other processes of this command out of it; a kill lets go of it too."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if not lasts(error):
            raise
        raise ChorusError(f"{out} cannot be a folder of images: {error}") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ChorusError(f"another process is writing to {out}: wait for it, or name another --out") from None
    finally:
        os.close(folder)


def examine(out: Path, record: dict[str, Any], model: Shipped) -> bool:
    """Return whether `out` holds images of this draw; raises `ChorusError` where it holds anything else."""
    for pattern in (f".{RECORD}.*.tmp", ".????????.png.*.tmp"):
        for left in out.glob(pattern):  # by one of these commands that was killed
            left.unlink()
    if not any(out.iterdir()):
        return False
    if not (out / RECORD).is_file():
        raise ChorusError(f"{out} is there already and holds no images of this command: name another --out")
    found = read_json(out / RECORD)
    different = [key for key in ("schema", "content", "seed", "label") if found.get(key) != record[key]]
    if different:
        told = {"content": f"another model than {model.name}", "seed": f"seed {found.get('seed')}"}
        what = ", ".join(told.get(key, f"{key} {found.get(key)}") for key in different)
        raise ChorusError(f"{out} holds images of {what}: name another --out")
    if found["n"] > record["n"]:
        raise ChorusError(f"{out} holds {found['n']:,} images of this draw already, more than {record['n']:,}")
    return True


def complete(out: Path, first: int, n: int) -> bool:
    """Whether all images that are drawn together from `first` on are there; each is written whole or not at all."""
    return all(path_of(out, number).is_file() for number in range(first, min(first + AT_ONCE, n)))


def path_of(out: Path, number: int) -> Path:
    return out / f"{number:08}.png"
