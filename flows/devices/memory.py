"""Whether a further stage fits on a GPU that has one already, by what stages were seen to take."""

from collections.abc import Callable, Collection, Mapping

from flows.devices.gpus import VISIBLE, free_memory
from flows.devices.slots import Slot


class Room:
    """Keeps stages off a GPU whose memory they would overrun.

    needs: bytes that each stage is known to take, from an earlier run. free: asks for the bytes that are free on a
    slot's GPU, `None` where that is not known. What is not known is no reason to refuse, and neither is a GPU that no
    other stage is on: there a stage would wait for nothing.
    """

    def __init__(self, needs: Mapping[str, int], free: Callable[[Slot], int | None] = free_memory) -> None:
        self._needs, self._free = needs, free
        self._before: dict[str, int | None] = {}  # bytes that were free on a GPU before the stages there began

    def fits(self, stage: str, slot: Slot, beside: Collection[str]) -> bool:
        """Whether a stage may begin on a slot's GPU, beside stages that may not have taken all of their memory yet."""
        device, need = slot.get(VISIBLE), self._needs.get(stage)
        if device is None or not self._needs:
            return True
        if not beside:
            self._before[device] = self._free(slot)
            return True
        now = self._free(slot) if need is not None else None
        if need is None or now is None:
            return True
        promised = [self._needs.get(other) for other in beside]
        known = [taken for taken in promised if taken is not None]
        before = self._before.get(device)
        if before is None or len(known) < len(promised):
            return need <= now
        return need <= min(now, before - sum(known))
