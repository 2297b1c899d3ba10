"""Tests of what a stage computes with."""

import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = """
import resource, sys, torch
from pipeline.compute import set_up
from pipeline.params import Compute
if sys.argv[1] == "kept":
    set_up(Compute(device="cpu"))
def step():
    return (torch.ones(2**24) + 1).sum().item()
for _ in range(10):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_memory_is_not_mapped_anew_at_each_step() -> None:
    def faults(way: str) -> int:
        command = [sys.executable, "-c", FAULTS, way]
        root = Path(__file__).parents[1]
        return int(subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout)

    assert faults("kept") * 10 < faults("given back")
