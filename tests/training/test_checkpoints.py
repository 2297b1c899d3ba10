"""Checkpoints that are cut short, altered or foreign are refused with a reason."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.compute import Runtime
from pipeline.models._base import ModelConfig
from pipeline.params import Family
from pipeline.training import checkpoints, loop
from pipeline.training.state import State
from pipeline.training.streams import Streams

RUNTIME = Runtime(torch.device("cpu"), None)


def build(width: int = 4) -> State:
    family = Family(architecture="mlp", kimg=1, latent=3, width=width)
    return loop.build(family, ModelConfig("mlp", 1, 8, 3, width), RUNTIME, Streams(0, "a", 0))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.safetensors"
    checkpoints.save_checkpoint(path, build(), checkpoints.environment(RUNTIME))
    return path


def test_cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(checkpoints.DamagedCheckpoint):
        checkpoints.restore_checkpoint(path, build())


def test_one_altered_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(checkpoints.DamagedCheckpoint, match="digest"):
        checkpoints.restore_checkpoint(path, build())


def test_empty_and_foreign_files(path: Path) -> None:
    for content in (b"", b"not a checkpoint"):
        path.write_bytes(content)
        with pytest.raises(checkpoints.DamagedCheckpoint):
            checkpoints.restore_checkpoint(path, build())


def test_other_networks(path: Path) -> None:
    with pytest.raises(checkpoints.DamagedCheckpoint, match="size mismatch"):
        checkpoints.restore_checkpoint(path, build(width=8))


def test_differences_name_both_sides() -> None:
    now = checkpoints.environment(RUNTIME)
    assert checkpoints.differences(now, now) == []
    assert checkpoints.differences({**now, "threads": "7"}, now) == [f"threads 7, now {now['threads']}"]


SHORT_OF_MEMORY = """
import re, resource, sys
from pathlib import Path
from pipeline.training import checkpoints, handover
from tests.training.test_checkpoints import build
state, path = build(width=512), Path(sys.argv[1])
held = 1024 * int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
resource.setrlimit(resource.RLIMIT_AS, (held, held))
for read in (checkpoints.restore_checkpoint, handover.continue_from):
    try:
        read(path, state)
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
def test_a_lack_of_memory_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    checkpoints.save_checkpoint(path, build(width=512), checkpoints.environment(RUNTIME))
    done = subprocess.run([sys.executable, "-c", SHORT_OF_MEMORY, str(path)], capture_output=True, text=True)
    said = done.stdout.splitlines()
    assert len(said) == 2, done.stderr
    for line in said:
        assert "allocate memory" in line
        assert not line.startswith(("DamagedCheckpoint", "ChorusError"))
