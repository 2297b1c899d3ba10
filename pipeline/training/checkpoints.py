"""Checkpoints of a member in training: one safetensors file, written whole, that says what it was computed on."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.compute import Runtime
from pipeline.exits import lasts
from pipeline.files import replacing
from pipeline.training.state import State

SCHEMA = 1


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be taken over; the message says why."""


def environment(runtime: Runtime) -> dict[str, str]:
    """Return what the last bits of a training depend on: torch, device, precision, instruction set and threads."""
    on_cuda = runtime.device.type == "cuda"
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(runtime.device) if on_cuda else "cpu",
        "precision": str(runtime.autocast or torch.float32).removeprefix("torch."),
        "instructions": torch.backends.cpu.get_cpu_capability() + "+AMX" * torch.cpu._is_amx_tile_supported(),
        "onednn": os.environ.get("ONEDNN_MAX_CPU_ISA", "default"),
        "threads": str(torch.get_num_threads()),
    }


def differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Return what differs between two environments, each as `name A, now B`."""
    return [f"{name} {before.get(name)}, now {value}" for name, value in now.items() if before.get(name) != value]


def save_checkpoint(path: Path, state: State, surroundings: dict[str, str]) -> None:
    """Write the state to `path`, whole or not at all."""
    tensors = state.tensors()
    header = {
        "schema": str(SCHEMA),
        "digest": _digest(tensors),
        "progress": json.dumps(state.progress(), allow_nan=False),
        "environment": json.dumps(surroundings),
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=header)


def restore_checkpoint(path: Path, state: State) -> dict[str, str]:
    """Put `state` where the checkpoint was written and return the environment of that time.

    Raises `DamagedCheckpoint`, leaving `state` unusable, where the file is cut short, altered or of other networks; the
    error itself where memory is short, for then nothing is known of the file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header: dict[str, Any] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
        if header["schema"] != str(SCHEMA):
            raise DamagedCheckpoint(f"it has schema {header['schema']}, this code reads {SCHEMA}")
        if header["digest"] != _digest(tensors):
            raise DamagedCheckpoint("its content does not match its digest")
        state.restore(tensors, json.loads(header["progress"]))
        return dict(json.loads(header["environment"]))
    except DamagedCheckpoint:
        raise
    except Exception as error:  # safetensors, json and torch raise several kinds for damaged or foreign files
        if not lasts(error):
            raise
        raise DamagedCheckpoint(str(error) or type(error).__name__) from None


def _digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over all tensors: safetensors itself notices a file cut short, but no altered weights."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
