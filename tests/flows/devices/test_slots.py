"""No slot is given away twice, and the most urgent stage gets the next one."""

import threading
import time
from collections.abc import Collection, Mapping

import pytest

from flows.devices import slots as devices
from flows.devices.slots import Pool, slots_for, usable_cores
from pipeline.params import Compute

VISIBLE = "CUDA_VISIBLE_DEVICES"


def test_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "4,5")
    assert slots_for(Compute()) == [{VISIBLE: "4"}, {VISIBLE: "5"}]
    assert [slot[VISIBLE] for slot in slots_for(Compute(), 3)] == ["4", "5", "4"]
    assert [slot[VISIBLE] for slot in slots_for(Compute(), members_per_gpu=2)] == ["4", "5", "4", "5"]
    assert slots_for(Compute(device="cpu"), 2) == [{}, {}]
    monkeypatch.setenv(VISIBLE, "")
    assert len(slots_for(Compute(threads=1), members_per_gpu=3)) == usable_cores()
    assert len(slots_for(Compute(threads=10_000))) == 1


class Crowd:
    """Stages in threads of their own that ask a pool, hold what they get until told, and note the order."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.began, self.slots = pool, [], {}  # type: Pool, list[str], dict[str, Slot]
        self._ends: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []

    def ask(self, *stages: str) -> None:
        for stage in stages:
            self._ends[stage] = threading.Event()
            self._threads.append(threading.Thread(target=self._hold, args=(stage,)))
            self._threads[-1].start()
            waits = time.monotonic() + 5
            while stage not in self.began and stage not in self.pool._waiting and time.monotonic() < waits:
                time.sleep(0.001)

    def _hold(self, stage: str) -> None:
        with self.pool.slot(stage, lambda: False) as slot:
            assert slot is not None
            self.slots[stage] = slot
            self.began.append(stage)
            self._ends[stage].wait(20)

    def end(self, *stages: str, then: int) -> list[str]:
        """End stages and return all that have begun once there are `then` of them."""
        for stage in stages:
            self._ends[stage].set()
        return self.wait(then)

    def wait(self, number: int, seconds: float = 5.0) -> list[str]:
        until = time.monotonic() + seconds
        while len(self.began) < number and time.monotonic() < until:
            time.sleep(0.001)
        return list(self.began)

    def close(self) -> None:
        for end in self._ends.values():
            end.set()
        for thread in self._threads:
            thread.join()


def test_pool_never_hands_a_slot_out_twice() -> None:
    pool = Pool([{"GPU": "0"}, {"GPU": "1"}])
    held: list[str] = []
    clashes: list[str] = []

    def work(stage: str) -> None:
        with pool.slot(stage, lambda: False) as slot:
            assert slot is not None
            if slot["GPU"] in held:
                clashes.append(slot["GPU"])
            held.append(slot["GPU"])
            time.sleep(0.01)
            held.remove(slot["GPU"])

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clashes == []


def test_waiting_ends_when_it_is_given_up() -> None:
    pool = Pool([{}])
    with pool.slot("first", lambda: False), pool.slot("second", lambda: True) as second:
        assert second is None
    with pool.slot("third", lambda: True) as third:
        assert third is None


def test_the_most_urgent_stage_goes_first_and_of_equal_ones_the_first_to_ask() -> None:
    crowd = Crowd(Pool([{}], {"short": 1, "long": 9, "also long": 9}))
    crowd.ask("any", "short", "unknown", "long", "also long")
    for number, stage in enumerate(["any", "long", "also long", "short"]):
        assert crowd.end(stage, then=number + 2)[: number + 1] == ["any", "long", "also long", "short"][: number + 1]
    assert crowd.wait(5) == ["any", "long", "also long", "short", "unknown"]
    crowd.close()


def test_what_begins_at_once_asks_in_any_order_and_the_most_urgent_still_goes_first() -> None:
    crowd = Crowd(Pool([{}], {"short": 1, "long": 9}))
    crowd.pool.expect(["short", "long"])
    crowd.ask("short")
    assert crowd.wait(1, seconds=0.3) == []
    crowd.ask("long")
    assert crowd.wait(1) == ["long"]
    assert crowd.end("long", then=2) == ["long", "short"]
    crowd.close()


def test_a_slot_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "PATIENCE", 0.3)
    crowd = Crowd(Pool([{}], {"long": 9}))
    crowd.pool.expect(["long"])
    crowd.ask("short")
    assert crowd.wait(1) == ["short"]
    crowd.close()


def test_the_fastest_device_goes_to_the_most_urgent_and_all_are_used_before_one_is_shared() -> None:
    slots = [{VISIBLE: name} for name in ("fast", "slow", "fast", "slow")]
    crowd = Crowd(Pool(slots, {"a": 4, "b": 3, "c": 2, "d": 1}))
    crowd.ask("a", "b")
    crowd.wait(2)
    assert {stage: slot[VISIBLE] for stage, slot in crowd.slots.items()} == {"a": "fast", "b": "slow"}
    crowd.ask("c", "d")
    crowd.end("a", "c", then=4)
    crowd.ask("e")
    assert crowd.wait(5)[-1] == "e"
    assert crowd.slots["e"] == {VISIBLE: "fast"}
    crowd.close()


def test_a_stage_that_does_not_fit_lets_others_pass_and_goes_when_there_is_room() -> None:
    def fits(stage: str, _slot: Mapping[str, str], beside: Collection[str]) -> bool:
        return not beside or stage != "large"

    crowd = Crowd(Pool([{VISIBLE: "0"}] * 2, {"large": 9}, fits))
    crowd.ask("small", "large", "smaller")
    assert crowd.wait(2) == ["small", "smaller"]
    crowd.end("small", then=2)
    assert crowd.wait(3, seconds=0.3) == ["small", "smaller"]
    assert crowd.end("smaller", then=3) == ["small", "smaller", "large"]
    crowd.close()
