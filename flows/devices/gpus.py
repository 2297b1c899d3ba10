"""Which GPUs there are and how much of their memory is free, as `nvidia-smi` says; torch is not asked."""

import csv
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER, BY_BUS = "CUDA_DEVICE_ORDER", "PCI_BUS_ID"  # how CUDA counts; by itself the fastest GPU is its first
# A line of `nvidia-smi -L`: "GPU 0: … (UUID: GPU-…)", or below it "  MIG 1g.5gb Device 0: (UUID: MIG-…)".
LISTED = re.compile(r"^(?:GPU (?P<index>\d+):| +MIG .*\(UUID: (?P<slice>MIG-[^)]+)\))")
QUERY = "index,uuid,name,compute_cap,memory.total,memory.free"


@dataclass(frozen=True)
class Gpu:
    """One whole GPU as `nvidia-smi` counts them; generation: its compute capability; total, free: bytes."""

    index: str
    uuid: str
    name: str
    generation: float
    total: int
    free: int


def gpu_environments(environment: Mapping[str, str] = os.environ) -> list[dict[str, str]]:
    """Return, for each device that CUDA would offer, the variables that let a process see it alone.

    The order is the user's own where `CUDA_VISIBLE_DEVICES` is set, else the faster ones come first. Their numbers are
    then those of `nvidia-smi`, and CUDA is told so: it would count them in another order where they are not alike.
    """
    if VISIBLE in environment:
        names = [name.strip() for name in environment[VISIBLE].split(",")]
        # CUDA ignores everything from the first invalid entry on; -1 and nothing at all are the usual ones.
        invalid = next((place for place, name in enumerate(names) if name in ("", "-1")), len(names))
        return [{VISIBLE: name} for name in names[:invalid]]
    found = listed_gpus(_nvidia_smi("-L"))
    gpus = query() if len(found) > 1 else []
    return [{VISIBLE: name, ORDER: BY_BUS} for name in faster_first(found, gpus)]


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


def faster_first(names: Sequence[str], gpus: Sequence[Gpu]) -> list[str]:
    """Sort devices: newer generations first, and the larger of one generation; slices, of which less is known, last."""
    known = {gpu.index: (gpu.generation, gpu.total) for gpu in gpus}
    return sorted(names, key=lambda name: known.get(name, (0.0, 0)), reverse=True)


def free_memory(environment: Mapping[str, str]) -> int | None:
    """Return how many bytes are free on the one GPU that a process with this environment sees.

    None where that is not known: without `nvidia-smi`, for a slice, or where CUDA may count the GPUs in another order.
    """
    device, gpus = environment.get(VISIBLE, ""), query()
    same_order = environment.get(ORDER) == BY_BUS or len({gpu.name for gpu in gpus}) == 1
    for gpu in gpus:
        if (same_order and gpu.index == device) or (device.startswith("GPU-") and gpu.uuid.startswith(device)):
            return gpu.free
    return None


def query() -> list[Gpu]:
    """Ask for all whole GPUs; none where there is no `nvidia-smi`, or it fails."""
    return read_query(_nvidia_smi(f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"))


def read_query(text: str) -> list[Gpu]:
    """Read comma-separated lines of `QUERY`, memory in MiB; lines with values that are not available are left out."""
    found = []
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        try:
            index, uuid, name, generation, total, free = row
            found.append(Gpu(index, uuid, name, float(generation), int(total) * 2**20, int(free) * 2**20))
        except ValueError:
            continue
    return found


def _nvidia_smi(*arguments: str) -> str:
    try:
        return subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
