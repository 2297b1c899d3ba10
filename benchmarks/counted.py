"""A stage of the pipeline, with its floating-point operations added to a file.

    python benchmarks/counted.py FILE STAGE …

Counts convolutions and matrix products of all networks, as the budget of training is (`pipeline/training/cost.py`).
FILE gets a line `STAGE OPERATIONS` for each run.
"""

import sys
from pathlib import Path

from torch.utils.flop_counter import FlopCounterMode

from pipeline.__main__ import main
from pipeline.training.cost import FORMULAS


class Untracked:
    """Takes the place of the counter's list of modules at work, whose hooks `torch.autograd.grad` refuses."""

    parents = frozenset({"Global"})

    def __enter__(self) -> "Untracked":
        return self

    def __exit__(self, *_: object) -> None: ...


def run(file: Path, command: list[str]) -> int:
    """Return the stage's exit status."""
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    counter.mod_tracker = Untracked()
    with counter:
        status = main(command)
    with file.open("a") as lines:
        lines.write(f"{command[0]} {counter.get_total_flops()}\n")
    return status


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), sys.argv[2:]))
