"""GPUs are counted without torch, and no slot is given away twice."""

import threading
import time
from pathlib import Path

import pytest

from flows.devices import Pool, listed_gpus, slots_for, usable_cores, visible_gpus
from pipeline.params import Compute

LISTING = """\
GPU 0: NVIDIA H200 (UUID: GPU-aaaa)
GPU 1: NVIDIA H200 (UUID: GPU-bbbb)
  MIG 1g.18gb     Device  0: (UUID: MIG-cccc)
  MIG 3g.71gb     Device  1: (UUID: MIG-dddd)
GPU 2: NVIDIA H200 (UUID: GPU-eeee)
"""


def test_listing_with_a_divided_gpu() -> None:
    assert listed_gpus(LISTING) == ["0", "MIG-cccc", "MIG-dddd", "2"]
    assert listed_gpus("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.") == []


@pytest.mark.parametrize(
    ("value", "devices"),
    [("", []), ("-1", []), ("0", ["0"]), ("2, 3", ["2", "3"]), ("0,-1,1", ["0"]), ("GPU-aa", ["GPU-aa"])],
)
def test_environment_decides(value: str, devices: list[str]) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": value}) == devices


def test_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    assert slots_for(Compute()) == [{"CUDA_VISIBLE_DEVICES": "4"}, {"CUDA_VISIBLE_DEVICES": "5"}]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots_for(Compute(), 3)] == ["4", "5", "4"]
    assert slots_for(Compute(device="cpu"), 2) == [{}, {}]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert len(slots_for(Compute(threads=1))) == usable_cores()
    assert len(slots_for(Compute(threads=10_000))) == 1


def test_without_nvidia_smi_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus({}) == []


def test_pool_never_hands_a_slot_out_twice() -> None:
    pool = Pool([{"GPU": "0"}, {"GPU": "1"}])
    held: list[str] = []
    clashes: list[str] = []

    def work() -> None:
        with pool.slot(lambda: False) as slot:
            assert slot is not None
            if slot["GPU"] in held:
                clashes.append(slot["GPU"])
            held.append(slot["GPU"])
            time.sleep(0.01)
            held.remove(slot["GPU"])

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clashes == []


def test_waiting_ends_when_it_is_given_up() -> None:
    pool = Pool([{}])
    with pool.slot(lambda: False), pool.slot(lambda: True) as second:
        assert second is None
