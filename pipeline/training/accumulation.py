"""A step on a batch that does not fit into memory: in smaller parts, whose gradients add up to the whole batch's."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from pipeline.training.objectives._base import Batch, Objective

if TYPE_CHECKING:
    from pipeline.training.state import State

SMALLEST = 2  # images of a part: batch statistics of one image say nothing
# Of the discriminator as it was when the step began; all other numbers are those of the updates after it.
BEFORE = ("loss_d", "logit_real", "logit_fake", "penalty")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the device or for tensors of the CPU, which torch tells by its text alone."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def take_step(objective: Objective, state: "State", batch: Batch, seed: int) -> Tensor:
    """Do one step of the objective, in parts of at most `state.micro` images where that is set; return its columns.

    seed: of torch's global stream, which dropout and augmentation draw from.

    The networks are updated in the objective's own order, each once, with the gradient of the whole batch. For each
    update the parts are computed anew, so a step of a GAN takes about twice as long. What is no mean over images is
    taken in each part: batch statistics, the logarithm of a variance; random draws come in another order, and a
    spectral norm's power iteration takes more steps.
    """
    if state.micro is None or state.micro >= batch.real.shape[-4]:
        torch.manual_seed(seed)
        return objective.step(state, batch)
    parts = list(parts_of(batch, state.micro))
    plain = state.optimizers
    passes: list[Tensor] = []
    updated: set[str] = set()  # what the first pass would have updated
    try:
        for roles in objective.updates:
            if passes and not updated & set(roles):
                continue  # the generator waits at this step
            gathering = {name: Gathering(optimizer, name in roles) for name, optimizer in plain.items()}
            state.optimizers = cast("dict[str, Optimizer]", gathering)
            numbers = []
            for index, (part, share) in enumerate(parts):
                state.partial = index < len(parts) - 1
                for one in gathering.values():
                    one.share, one.last = share, not state.partial
                torch.manual_seed(seed + index)
                numbers.append(share * objective.step(state, part))
            updated |= {name for name, one in gathering.items() if one.asked}
            passes.append(torch.stack(numbers).sum(0))
    finally:
        state.optimizers, state.partial = plain, False
    before = [name.partition("@")[0] in BEFORE for name in objective.columns]
    return torch.where(torch.tensor(before, device=passes[0].device), passes[0], passes[-1])


def parts_of(batch: Batch, size: int) -> Iterator[tuple[Batch, float]]:
    """Yield parts of at most `size` images, as even as can be, each with its share of the batch's images."""
    total = batch.real.shape[-4]
    for rows in torch.arange(total).tensor_split(-(-total // size)):
        inside = slice(int(rows[0]), int(rows[-1]) + 1)
        part = replace(
            batch,
            real=batch.real[..., inside, :, :, :],
            z=batch.z[..., inside, :],
            labels=None if batch.labels is None else batch.labels[..., inside],
        )
        yield part, len(rows) / total


class Gathering:
    """Stands for an optimiser while parts of a batch come one after another, and steps once, after the last of them.

    wanted: whether it steps in this pass at all; otherwise it only forgets gradients.
    """

    def __init__(self, optimizer: Optimizer, wanted: bool) -> None:
        self.optimizer, self.wanted = optimizer, wanted
        self.parameters: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
        self.sums: dict[int, Tensor] = {}
        self.share, self.last, self.asked = 1.0, False, False

    def step(self) -> None:
        """Take in the gradients of a part; with those of the last one, take the step."""
        self.asked = True
        if not self.wanted:
            return
        for place, parameter in enumerate(self.parameters):
            if parameter.grad is not None:
                scaled = parameter.grad * self.share
                self.sums[place] = self.sums[place].add_(scaled) if place in self.sums else scaled
        if self.last:
            for place, parameter in enumerate(self.parameters):
                parameter.grad = self.sums.get(place)
            self.optimizer.step()

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()
