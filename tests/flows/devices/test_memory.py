"""A second stage is put on a GPU where it is known to fit, or where nothing is known."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from flows.devices.gpus import VISIBLE
from flows.devices.memory import Room
from pipeline.peak import CONTEXT, keep_peak, leave_peak, peaks

ROOT = Path(__file__).parents[3]
GPU = {VISIBLE: "0"}


def room(free: list[int | None], **needs: int) -> Room:
    """A GPU that answers with these numbers, one after another."""
    return Room(needs, lambda _slot: free.pop(0))


def test_the_first_stage_is_never_refused() -> None:
    assert room([1], a=10).fits("a", GPU, [])


def test_a_second_stage_needs_what_is_free_now() -> None:
    assert room([100, 40], a=60, b=40).fits("b", GPU, ["unknown"]) is True
    assert not room([39], a=60, b=40).fits("b", GPU, ["unknown"])


def test_what_the_others_have_not_taken_yet_counts_as_taken() -> None:
    guard = room([100, 100, 100], a=61, b=40, c=39)
    assert guard.fits("a", GPU, [])
    assert not guard.fits("b", GPU, ["a"])
    assert guard.fits("c", GPU, ["a"])


def test_what_is_not_known_is_no_reason_to_refuse() -> None:
    assert room([100], a=60).fits("new", GPU, ["a"])
    assert room([None], a=60).fits("a", GPU, ["b"])
    assert Room({}).fits("a", GPU, ["b"])
    assert room([], a=60).fits("a", {}, ["b", "c"])


def test_peaks_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert peaks(tmp_path) == {}
    for stage in ("train@x", "sub/dvc.yaml:train@x"):
        keep_peak(tmp_path, stage, 5)
    assert peaks(tmp_path) == {"train@x": 5, "sub/dvc.yaml:train@x": 5}
    (tmp_path / ".chorus" / "memory" / "train@x.json").write_text("{")
    assert peaks(tmp_path) == {"sub/dvc.yaml:train@x": 5}


def test_a_stage_without_cuda_leaves_nothing_and_loads_nothing(tmp_path: Path) -> None:
    code = "import pathlib, sys; from pipeline.peak import leave_peak; leave_peak(pathlib.Path(sys.argv[1]), 'x');"
    code += "sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_stage_on_cuda_leaves_its_peak(tmp_path: Path) -> None:
    torch.zeros(2**26, dtype=torch.uint8, device="cuda")
    leave_peak(tmp_path, "x")
    assert peaks(tmp_path)["x"] >= CONTEXT + 2**26
