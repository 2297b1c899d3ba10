"""How much GPU memory each stage takes at most: the next run looks before it puts two of them on one GPU."""

import sys
from pathlib import Path
from urllib.parse import quote, unquote

from pipeline.errors import ChorusError
from pipeline.files import read_json, write_json

# What a process takes besides tensors: its CUDA context and the kernels that it loads, which vary by card and driver.
CONTEXT = 600 * 2**20


def leave_peak(root: Path, stage: str) -> None:
    """Leave what this process took for a stage at most; nothing where it did not use CUDA.

    It is no output of the stage, for it differs between machines.
    """
    if (taken := cuda_peak()) is not None:
        keep_peak(root, stage, taken)


def cuda_peak() -> int | None:
    """Return the bytes of GPU memory that this process took at most; `None` where it has not used CUDA."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_reserved()) + CONTEXT


def keep_peak(root: Path, stage: str, taken: int) -> None:
    """Write down what a stage took, in bytes."""
    write_json(_folder(root) / f"{quote(stage, safe='@')}.json", taken)


def peaks(root: Path) -> dict[str, int]:
    """Return the bytes that each stage took at most in its last run here; of stages that used no GPU there are none."""
    return {unquote(path.stem): value for path in _folder(root).glob("*.json") if (value := _read(path)) is not None}


def _read(path: Path) -> int | None:
    try:
        value = read_json(path)
    except ChorusError:
        return None
    return value if isinstance(value, int) else None


def _folder(root: Path) -> Path:
    return root / ".chorus" / "memory"
