"""DVC's cache as a flow finds it: files that were damaged there, and what is done about them."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

OBJECT = re.compile(r"[0-9a-f]{30}(\.dir)?")  # below a folder of two digits


def mend_cache(root: Path, say: Callable[[str], None]) -> None:
    """Drop files of DVC's cache that do not hold what their names say; the checkout's own copies take their place.

    DVC takes every read-only file of its cache for sound, so it would restore a damaged one, and record the stages
    below as made from it. Files that have not been touched since they were last looked at are not read again: DVC keeps
    their hash with their size and time.

    say: called with a line about what was found.
    """
    from dvc.repo import Repo

    # Other commands of DVC wait meanwhile, so that no file is seen half written.
    with contextlib.chdir(root), Repo(_wait_for_lock=True) as repo, repo.lock:
        dropped = list(_drop_damaged(repo.cache.local))
        if not dropped:
            return
        filled = [str(out) for out in repo.index.outs if _is_only_here(out)]
        for out in repo.index.outs:
            if str(out) in filled:
                out.commit(relink=False)
    again = f"those of {', '.join(filled)} are filled again from the checkout, the others" if filled else "they"
    say(f"DVC's cache had {len(dropped)} damaged files: {again} are made anew when they are needed")


def _drop_damaged(cache: Any) -> Iterator[str]:
    """Remove the damaged files of a cache and yield their names."""
    from dvc_data.hashfile.db import HashFileDB
    from dvc_objects.errors import ObjectFormatError

    for path in sorted(Path(cache.path).glob("[0-9a-f][0-9a-f]/*")):
        if OBJECT.fullmatch(path.name):
            oid = path.parent.name + path.name
            try:
                HashFileDB.check(cache, oid)  # the local cache's own check stops at a file's mode
            except ObjectFormatError:
                yield oid


def _is_only_here(out: Any) -> bool:
    """Whether the checkout has an output as `dvc.lock` has it, and the cache has not."""
    cached = out.use_cache and out.hash_info
    return bool(cached and out.exists and out.changed_cache() and not out.changed_checksum())
