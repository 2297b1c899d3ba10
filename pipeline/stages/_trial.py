"""A packaged model tried out in a fresh process, which draws the images that the gate measures."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.compute import Runtime
from pipeline.errors import PassingError
from pipeline.exits import SAYS_PASSING, TAKEN_AWAY
from pipeline.files import read_json
from pipeline.packaged import trial
from pipeline.params.redaction import SECRET, holds_credentials, redact

TIMEOUT = 3600.0  # seconds after which a model counts as hanging
# A model's code gets no paths to ours, no store and no credentials.
WITHHELD = ("PYTHON", "MLFLOW", "AWS")
MEGABYTE = 1e6
NO_MEMORY = ("MemoryError", "OutOfMemoryError")  # the ends of the names, by torch and by Python


@dataclass(frozen=True)
class Tried:
    """What came of it: images (uint8 N×C×H×W) or a fault in words; milliseconds and passes an image; its size."""

    images: Tensor | None
    fault: str | None
    milliseconds: float | None
    passes: float | None
    megabytes: float


def try_out(package: Path, workspace: Path, samples: int, seed: int, runtime: Runtime) -> Tried:
    """Load a package (MLflow's folder) in a process of its own and let it draw; a fault is a result, no exception.

    workspace: an empty folder. The process computes with as many threads as this one, and on the same device. Raises
    `PassingError` where it was killed, or found no memory or nobody who answers: that says nothing of the model.
    """
    megabytes = sum(path.stat().st_size for path in package.rglob("*") if path.is_file()) / MEGABYTE
    command = [sys.executable, "-I", trial.__file__, str(package), str(workspace), str(samples), str(seed)]
    try:
        done = subprocess.run(
            command, cwd=workspace, env=environment(runtime), capture_output=True, text=True, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return Tried(None, f"no images after {TIMEOUT:g} seconds", None, None, megabytes)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"]
        check_own_fault(done.returncode, lines[-1])
        return Tried(None, redact(lines[-1]), None, None, megabytes)
    found = read_json(workspace / "trial.json")
    images = torch.from_numpy(np.load(workspace / "images.npy", allow_pickle=False)).permute(0, 3, 1, 2).contiguous()
    return Tried(images, None, found["milliseconds"], found["passes"], megabytes)


def check_own_fault(status: int, said: str) -> None:
    """Raise `PassingError` where what ended a trial is not the model's own fault; said: its last line."""
    if -status in TAKEN_AWAY:
        raise PassingError(
            f"the trial of a model was killed ({signal.strsignal(-status)}): try again, with more memory"
        )
    if SAYS_PASSING.search(said) or said.partition(":")[0].endswith(NO_MEMORY):
        raise PassingError(f"the trial of a model found no memory or no answer ({said}): try again")


def environment(runtime: Runtime) -> dict[str, str]:
    """Return what the process sees of this one's environment."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(WITHHELD) and not SECRET.search(name.upper()) and not holds_credentials(value)
    }
    threads = str(torch.get_num_threads())
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if runtime.device.type == "cpu" else {}
    rules = {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    return kept | hidden | rules
