"""GPUs are counted, named and measured without torch, as CUDA will count and name them."""

from pathlib import Path

import pytest

from flows.devices import gpus
from flows.devices.gpus import (
    BY_BUS,
    ORDER,
    VISIBLE,
    faster_first,
    free_memory,
    gpu_environments,
    listed_gpus,
    read_query,
)

LISTING = """\
GPU 0: NVIDIA H200 (UUID: GPU-aaaa)
GPU 1: NVIDIA H200 (UUID: GPU-bbbb)
  MIG 1g.18gb     Device  0: (UUID: MIG-cccc)
  MIG 3g.71gb     Device  1: (UUID: MIG-dddd)
GPU 2: NVIDIA H200 (UUID: GPU-eeee)
"""
TABLE = """\
0, GPU-aaaa, Tesla T4, 7.5, 15360, 14923
1, GPU-bbbb, NVIDIA H200, 9.0, 143771, 143000
2, GPU-cccc, NVIDIA H100, 9.0, 81559, [N/A]
3, GPU-dddd, NVIDIA H100, 9.0, 81559, 1024
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose `nvidia-smi` says what lies in this folder, and no other."""
    command = tmp_path / "nvidia-smi"
    command.write_text(f'#!/bin/sh\ncase "$1" in -L) cat {tmp_path}/listing;; *) cat {tmp_path}/table;; esac 2>&1\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.delenv(ORDER, raising=False)
    (tmp_path / "table").write_text(TABLE)
    (tmp_path / "listing").write_text("".join(f"GPU {n}: some (UUID: GPU-{n})\n" for n in range(4)))
    return tmp_path


def test_listing_with_a_divided_gpu() -> None:
    assert listed_gpus(LISTING) == ["0", "MIG-cccc", "MIG-dddd", "2"]
    assert listed_gpus("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.") == []


@pytest.mark.parametrize(
    ("value", "devices"),
    [("", []), ("-1", []), ("0", ["0"]), ("2, 3", ["2", "3"]), ("0,-1,1", ["0"]), ("GPU-aa", ["GPU-aa"])],
)
def test_the_users_own_choice_stands(value: str, devices: list[str]) -> None:
    assert gpu_environments({VISIBLE: value}) == [{VISIBLE: name} for name in devices]


def test_without_nvidia_smi_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_environments({}) == []
    assert free_memory({VISIBLE: "0"}) is None


def test_the_table_in_bytes_and_without_what_is_not_known() -> None:
    found = read_query(TABLE)
    assert [gpu.index for gpu in found] == ["0", "1", "3"]
    assert (found[0].total, found[0].free, found[0].generation) == (15360 * 2**20, 14923 * 2**20, 7.5)
    assert read_query('Field "compute_cap" is not a valid field to query.') == []


def test_faster_devices_come_first_and_slices_last(machine: Path) -> None:
    assert faster_first(["MIG-x", "0", "1", "3"], read_query(TABLE)) == ["1", "3", "0", "MIG-x"]
    assert faster_first(["0", "1"], []) == ["0", "1"]
    assert gpu_environments({}) == [{VISIBLE: name, ORDER: BY_BUS} for name in ("1", "3", "0", "2")]


def test_free_memory_of_the_gpu_that_a_process_would_see(machine: Path) -> None:
    assert free_memory({VISIBLE: "3", ORDER: BY_BUS}) == 1024 * 2**20
    assert free_memory({VISIBLE: "GPU-aa"}) == 14923 * 2**20
    assert free_memory({VISIBLE: "MIG-cccc", ORDER: BY_BUS}) is None
    # CUDA's own first GPU is its fastest, nvidia-smi's the first on the bus: only among equals is that one number.
    assert free_memory({VISIBLE: "0"}) is None
    (machine / "table").write_text("\n".join(line for line in TABLE.splitlines() if "H100" in line))
    assert free_memory({VISIBLE: "3"}) == 1024 * 2**20


def test_a_failing_nvidia_smi_is_none(machine: Path) -> None:
    (machine / "nvidia-smi").write_text("#!/bin/sh\necho 0, GPU-aaaa, Tesla T4, 7.5, 15360, 14923; exit 9\n")
    assert gpus.query() == []
