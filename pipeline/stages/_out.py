"""Where a command is to write: looked at before it computes for long."""

import tempfile
from pathlib import Path

from pipeline.errors import ChorusError
from pipeline.exits import lasts


def make_way(out: Path) -> None:
    """Make the folder that a new file or folder `out` goes into; raises `ChorusError` where nothing can be written."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            out.exists()  # its name may be too long
    except OSError as error:
        if not lasts(error):
            raise
        raise ChorusError(f"{out} cannot be written: {error}") from None
