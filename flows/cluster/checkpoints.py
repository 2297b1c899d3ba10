"""A stage's checkpoints beyond its node: copied to where another node finds them, should this one be lost."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec

FOLDER = ".checkpoints"
LOOKING = 2.0  # seconds between two looks for new files
UNFINISHED = ".tmp"  # ending of files that are being written

Seen = dict[str, tuple[int, int]]  # time of change (ns) and size of each file, by its path in the folder


class Copies:
    """The copies of one stage's checkpoints. address: any that fsspec knows, a folder or an object store's."""

    def __init__(self, address: str, stage: str, clone: Path) -> None:
        self.files: Any
        self.files, base = fsspec.core.url_to_fs(address)
        self.base = f"{base.rstrip('/')}/{stage}"
        self.folder = clone / FOLDER

    def bring(self) -> bool:
        """Put the copies where the stage looks for checkpoints; return whether there were any."""
        names = self.files.find(self.base) if self.files.exists(self.base) else []
        for name in names:
            target = self.folder / name.split(self.base, 1)[1].lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            self.files.get_file(name, str(target))
        return bool(names)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Copy what changes while the context lasts, and at its end."""
        ended = threading.Event()
        thread = threading.Thread(target=self._keep, args=(ended,))
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def drop(self) -> None:
        """Remove the copies: the stage has ended well."""
        if self.files.exists(self.base):
            self.files.rm(self.base, recursive=True)

    def _keep(self, ended: threading.Event) -> None:
        before = self._present()
        last = False
        while not last:
            last = ended.wait(LOOKING)
            try:
                before = self._copy(before)
            except Exception as error:
                # A store that is away must not end a training, and each library says that in its own way.
                what = f"{type(error).__name__}: {error}"
                print(f"checkpoints cannot be copied to {self.base} ({what}); trying on", flush=True)

    def _copy(self, before: Seen) -> Seen:
        now = self._present()
        for name in now:
            if now[name] != before.get(name):
                self.files.makedirs(f"{self.base}/{name}".rpartition("/")[0], exist_ok=True)
                self.files.put_file(str(self.folder / name), f"{self.base}/{name}")
        for name in before.keys() - now.keys():
            if self.files.exists(copy := f"{self.base}/{name}"):
                self.files.rm_file(copy)
        return now

    def _present(self) -> Seen:
        seen: Seen = {}
        for path in sorted(self.folder.rglob("*")):
            try:
                if path.is_file() and path.suffix != UNFINISHED:
                    state = path.stat()
                    seen[str(path.relative_to(self.folder))] = (state.st_mtime_ns, state.st_size)
            except FileNotFoundError:  # gone since it was listed
                continue
        return seen
