"""What training costs: floating-point operations of one training image, counted and not timed."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pipeline.compute import Runtime
from pipeline.models._base import ModelConfig
from pipeline.params import Family
from pipeline.training import loop
from pipeline.training.objectives._base import Batch, objective_for
from pipeline.training.streams import Streams

Shape = tuple[int, ...]
BATCHES = (8, 16)  # sizes of the two steps from which the cost of the family's own batch follows


def flops_per_image(family: Family, config: ModelConfig) -> float:
    """Return the operations that a training step takes of a member, for each image of its batch.

    Counts what `torch.utils.flop_counter` knows, two operations a multiplication with addition: convolutions and matrix
    products, forward and backward, of all networks. What a step costs whatever its batch (power iterations) is told
    from what every image costs by two sizes of batches. The mean over all kinds of steps: penalties that are taken at
    each k-th step count 1/k, and so do updates of the generator at each k-th.
    Deterministic, and the same on every machine: it runs real steps on the CPU, of networks of its own.
    """
    small, large = (_step_flops(family, config, batch) for batch in BATCHES)
    of_an_image = (large - small) / (BATCHES[1] - BATCHES[0])
    of_a_step = small - BATCHES[0] * of_an_image
    return of_an_image + of_a_step / family.batch


def _step_flops(family: Family, config: ModelConfig, batch: int) -> float:
    """Return the operations of a mean step on `batch` images."""
    every, updates = family.regularisers.every, family.discriminator_steps
    cycle = range(math.lcm(every, updates))
    kinds: dict[tuple[bool, bool], list[int]] = {}
    for step in cycle:
        kinds.setdefault((step % every == 0, (step + 1) % updates == 0), []).append(step)
    return sum(len(steps) * _count(family, config, batch, steps[0]) for steps in kinds.values()) / len(cycle)


def _count(family: Family, config: ModelConfig, batch: int, step: int) -> float:
    runtime, streams = Runtime(torch.device("cpu"), None), Streams(0, "cost", 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = loop.build(family, config, runtime, streams)
        objective = objective_for(family, config, runtime)
        real = torch.zeros(batch, config.channels, config.size, config.size).contiguous(
            memory_format=torch.channels_last
        )
        counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
        with counter:
            objective.step(state, Batch(real, torch.randn(batch, objective.noise), _labels(config, batch), step))
    # Members that train together share the cost of their step.
    return counter.get_total_flops() / len(objective.members(state))


def _backward(outputs: Shape, inputs: Shape, weight: Shape, *options: Any, **_named: Any) -> int:
    """Return the operations of a convolution's gradients: each that is taken costs as much as the forward pass.

    torch's own formula counts the weight's gradient as if a grouped convolution had one group.
    """
    *_, transposed, _output_padding, _groups, wanted = options
    places = math.prod((inputs if transposed else outputs)[2:])
    return sum(wanted[:2]) * 2 * inputs[0] * places * math.prod(weight)


FORMULAS = {torch.ops.aten.convolution_backward: _backward}


def _labels(config: ModelConfig, batch: int) -> Tensor | None:
    """Return labels for a conditional model."""
    return torch.arange(batch) % len(config.class_shares) if config.class_shares else None
