"""Slots that stages compute in: one for each GPU, or as many as the processor's cores carry."""

import math
import os
import queue
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.params import Compute

VISIBLE = "CUDA_VISIBLE_DEVICES"
# A line of `nvidia-smi -L`: "GPU 0: … (UUID: GPU-…)", or below it "  MIG 1g.5gb Device 0: (UUID: MIG-…)".
LISTED = re.compile(r"^(?:GPU (?P<index>\d+):| +MIG .*\(UUID: (?P<slice>MIG-[^)]+)\))")


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the devices that CUDA would offer, each as a value for `CUDA_VISIBLE_DEVICES`; torch is not asked."""
    if VISIBLE in environment:
        names = [name.strip() for name in environment[VISIBLE].split(",")]
        # CUDA ignores everything from the first invalid entry on; -1 and nothing at all are the usual ones.
        invalid = next((place for place, name in enumerate(names) if name in ("", "-1")), len(names))
        return names[:invalid]
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return listed_gpus(listing)


def listed_gpus(listing: str) -> list[str]:
    """Read the output of `nvidia-smi -L`: indices of whole GPUs, and names of the slices of those that are divided."""
    found: list[str] = []
    whole = False  # whether the entry found last is a GPU none of whose slices was seen yet
    for match in filter(None, map(LISTED.match, listing.splitlines())):
        if match["slice"] and whole:
            found.pop()
        found.append(match["slice"] or match["index"])
        whole = not match["slice"]
    return found


def usable_cores() -> int:
    """Return how many cores this process may use: its affinity, cut by the quota of its control group."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


def slots_for(compute: Compute, count: int | None = None) -> list[dict[str, str]]:
    """Return the environment of each slot.

    By default one slot a GPU, or, without one, cores ÷ `compute.threads`. `count` slots are dealt round the GPUs, so
    that small networks can share one.
    """
    gpus = [] if compute.device == "cpu" else visible_gpus()
    if gpus:
        return [{VISIBLE: gpus[number % len(gpus)]} for number in range(count or len(gpus))]
    return [{} for _ in range(count or max(1, usable_cores() // compute.threads))]


class Pool:
    """Hands out slots, each to one stage at a time."""

    def __init__(self, slots: Sequence[Mapping[str, str]]) -> None:
        self.size = len(slots)
        self._free: queue.Queue[Mapping[str, str]] = queue.Queue()
        for slot in slots:
            self._free.put(slot)

    @contextmanager
    def slot(self, given_up: Callable[[], bool]) -> Iterator[Mapping[str, str] | None]:
        """Wait for a free slot and hold it; yields `None` once `given_up()` says that waiting is pointless."""
        slot = None
        while slot is None and not given_up():
            try:
                slot = self._free.get(timeout=0.2)
            except queue.Empty:
                continue
        try:
            yield slot
        finally:
            if slot is not None:
                self._free.put(slot)
