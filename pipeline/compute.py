"""The device, precision and threads that a stage computes with."""

import ctypes
from dataclasses import dataclass

import torch
from threadpoolctl import threadpool_limits

from pipeline.errors import ChorusError
from pipeline.params import Compute

# Numbers of glibc's mallopt (malloc.h).
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
GROWTH = 64 * 2**20  # bytes that the heap grows by at once


@dataclass(frozen=True)
class Runtime:
    """A device and the dtype that autocast uses on it (`None`: no autocast, plain fp32)."""

    device: torch.device
    autocast: torch.dtype | None

    def autocasting(self) -> torch.autocast:
        """Return the autocast context of this runtime (a disabled one in fp32)."""
        return torch.autocast(
            self.device.type, dtype=self.autocast or torch.bfloat16, enabled=self.autocast is not None
        )


def bf16_is_fast(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # oneDNN emulates bf16 slowly on processors without these instructions.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def set_up(compute: Compute) -> Runtime:
    """Set this process's thread count and resolve `auto`; raises `ChorusError` for a device that is not there.

    The thread count is a parameter, not a guess, because results depend on it in their last bits: a stage gives the
    same files whoever starts it.
    """
    torch.set_num_threads(compute.threads)
    threadpool_limits(compute.threads)  # numpy's linear algebra has threads of its own
    name = compute.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ChorusError("compute.device is 'cuda' but torch sees no CUDA device; use 'auto' or 'cpu'")
    device = torch.device(name)
    if name == "cpu":
        keep_freed_memory()
    half = compute.precision == "bf16" or (compute.precision == "auto" and bf16_is_fast(device))
    return Runtime(device, torch.bfloat16 if half else None)


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, where its C library is glibc.

    By default every tensor above 32 MiB is mapped anew, and the kernel fills it with zeros before it is written to: in
    resnet's training that was a sixth of the time. The process holds on to its largest need instead.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, -1), (TOP_PAD, GROWTH)):
            mallopt(option, value)
