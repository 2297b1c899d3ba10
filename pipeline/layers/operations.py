"""What a computation costs, counted and not timed."""

from collections.abc import Callable
from typing import Any

from torch.utils.flop_counter import FlopCounterMode


def operations(run: Callable[[], Any]) -> int:
    """Return the floating-point operations of convolutions and matrix products in what is run, forward and back."""
    with FlopCounterMode(display=False) as counted:
        run()
    return int(counted.get_total_flops())
