"""Checkpoints that are cut short, altered or foreign are refused with a reason."""

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
