"""Slots that stages compute in: each GPU, shared or not, or as many as the processor's cores carry."""

import math
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from flows.devices.gpus import VISIBLE, gpu_environments
from pipeline.params import Compute

Slot = Mapping[str, str]  # the variables that a stage in the slot gets
PATIENCE = 10.0  # seconds that an announced stage has to ask for its slot


def usable_cores() -> int:
    """Return how many cores this process may use: its affinity, cut by the quota of its control group."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


def slots_for(compute: Compute, count: int | None = None, members_per_gpu: int = 1) -> list[dict[str, str]]:
    """Return the environment of each slot, those on the fastest device first.

    By default `members_per_gpu` slots a GPU, or, without one, cores ÷ `compute.threads`. `count` slots are dealt round
    the GPUs, so that small networks can share one.
    """
    gpus = [] if compute.device == "cpu" else gpu_environments()
    if gpus:
        return [dict(gpus[number % len(gpus)]) for number in range(count or len(gpus) * members_per_gpu)]
    return [{} for _ in range(count or max(1, usable_cores() // compute.threads))]


class Pool:
    """Hands out slots, each to one stage at a time: the most urgent stage first, on the device with the fewest stages.

    slots: the fastest device first, which the most urgent of several stages gets. urgency: a number for each stage; of
    equally urgent ones the first to ask is the first to go. fits: whether a stage may take a slot beside the stages
    that hold others on its device. A stage that does not fit anywhere lets others pass, and is looked at again
    whenever a slot is given back; on a device that is free every stage fits.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        urgency: Mapping[str, float] | None = None,
        fits: Callable[[str, Slot, Collection[str]], bool] = lambda *_: True,
    ) -> None:
        self.size = len(slots)
        self._slots, self._urgency, self._fits = tuple(slots), urgency or {}, fits
        self._changed = threading.Condition()
        self._held: dict[int, str] = {}  # the stage in each slot that is taken
        self._waiting: list[str] = []  # in the order in which they asked
        self._coming: dict[str, float] = {}  # stages that will ask, and until when their slots are kept

    def expect(self, stages: Iterable[str]) -> None:
        """Announce stages that are about to ask, so that until they do no less urgent one takes their slots.

        Stages that can begin at the same moment ask in any order, some of them long after the first slot is free.
        """
        with self._changed:
            self._coming.update(dict.fromkeys(stages, time.monotonic() + PATIENCE))

    @contextmanager
    def slot(self, stage: str, given_up: Callable[[], bool]) -> Iterator[Slot | None]:
        """Wait for a slot and hold it; yields `None` once `given_up()` says that waiting is pointless."""
        number = self._wait(stage, given_up)
        try:
            yield None if number is None else self._slots[number]
        finally:
            if number is not None:
                with self._changed:
                    del self._held[number]
                    self._deal()

    def _wait(self, stage: str, given_up: Callable[[], bool]) -> int | None:
        with self._changed:
            self._waiting.append(stage)
            self._coming.pop(stage, None)
            if not given_up():
                self._deal()
            while stage in self._waiting:
                if given_up():
                    self._waiting.remove(stage)
                    return None
                self._changed.wait(timeout=0.2)
                if any(until < time.monotonic() for until in self._coming.values()):
                    self._deal()
            return next(number for number, holder in self._held.items() if holder == stage)

    def _deal(self) -> None:
        """Give the free slots to the most urgent stages; those of stages that have not asked yet stay free."""
        now = time.monotonic()
        self._coming = {stage: until for stage, until in self._coming.items() if until > now}
        free = [number for number in range(self.size) if number not in self._held]
        for stage in sorted([*self._waiting, *self._coming], key=lambda stage: -self._urgency.get(stage, 0.0)):
            number = self._place(stage, free)
            if number is None:
                continue
            free.remove(number)
            if stage in self._waiting:
                self._waiting.remove(stage)
                self._held[number] = stage
        self._changed.notify_all()

    def _place(self, stage: str, free: Iterable[int]) -> int | None:
        """Return the free slot that suits a stage best; `None` where it fits in none."""
        for number in sorted(free, key=lambda number: len(self._beside(number))):
            if self._fits(stage, self._slots[number], self._beside(number)):
                return number
        return None

    def _beside(self, number: int) -> list[str]:
        """Return the stages that compute on a slot's device."""
        device = self._slots[number].get(VISIBLE)
        return [stage for other, stage in self._held.items() if self._slots[other].get(VISIBLE) == device]
