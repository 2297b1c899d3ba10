"""The training loop of one member. It opens no files and reads no clock: the caller does, between steps."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.compute import Runtime
from pipeline.errors import ChorusError
from pipeline.layers.stacked import Stacked, parts_of
from pipeline.models._base import ModelConfig
from pipeline.params import Family
from pipeline.training import ema, health
from pipeline.training.accumulation import take_step
from pipeline.training.fused import objective_of
from pipeline.training.objectives._base import Batch, Objective
from pipeline.training.optimizers import build_optimizer
from pipeline.training.state import State
from pipeline.training.streams import Streams

ROWS = 100  # of the history, for a whole training
SETTLE = 16  # batches that measure the average's batch-norm statistics at a snapshot


@dataclass(frozen=True)
class Data:
    """What a member trains on, on the runtime's device for the whole training.

    images: uint8 N×C×H×W. labels: int64 N in [0, classes), where the member is conditional. rows: int64 M, the images
    that an epoch goes through, some several times (None: each of them once); R×M where R replicas train as one,
    each on its own.
    """

    images: Tensor
    labels: Tensor | None = None
    rows: Tensor | None = None

    def __len__(self) -> int:
        """How many images an epoch has."""
        return len(self.images) if self.rows is None else self.rows.shape[-1]

    def at(self, places: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the images at `places` of an epoch (B, or R×B) as `batch_at` does, and their labels."""
        if self.rows is None:
            rows = places
        else:
            rows = self.rows.gather(-1, places) if self.rows.dim() == places.dim() else self.rows[0][places]
        return batch_at(self.images, rows), None if self.labels is None else self.labels[rows.to(self.labels.device)]


def schedule(family: Family, start: int = 0) -> tuple[int, set[int]]:
    """Return the number of the last step, and the numbers of the steps that end at a snapshot.

    start: images seen before the family's `kimg` begin to count; steps are counted from the very first image. At least
    one step is taken. Snapshots are evenly spaced and the last is at the end; a budget of fewer steps than snapshots
    has one a step.
    """
    before, steps = start // family.batch, max(1, math.ceil(family.kimg * 1000 / family.batch))
    ends = {before + max(1, round(steps * k / family.snapshots)) for k in range(1, family.snapshots + 1)}
    return before + steps, ends


def build(family: Family, config: ModelConfig, runtime: Runtime, streams: Streams) -> State:
    """Return a member at its start: networks on the device in channels_last, their average, their optimisers."""
    objective = objective_of(family, config, runtime, streams.replicas)
    replicas = [initial_networks(objective, runtime, part) for part in streams.parts]
    networks = replicas[0]
    if len(replicas) > 1:
        networks = {name: Stacked([replica[name] for replica in replicas]) for name in networks}
    rates = dict.fromkeys(networks, family.lr) | {"discriminator": family.lr_discriminator or family.lr}
    average = copy.deepcopy(networks["generator"]).eval().requires_grad_(False)
    return State(
        networks=networks,
        average=average,
        optimizers={name: build_optimizer(network, family, rates[name]) for name, network in networks.items()},
        columns=objective.columns,
        sums=torch.zeros(len(objective.columns), device=runtime.device),
        profiles={width: copy.deepcopy(average) for width in ema.PROFILES if family.ema_profiles},
    )


def initial_networks(objective: Objective, runtime: Runtime, streams: Streams) -> dict[str, nn.Module]:
    """Return the networks that one member starts with, on the device in channels_last."""
    with torch.random.fork_rng():
        torch.manual_seed(streams.seed_of("weights"))
        networks = objective.networks()
    for name, network in networks.items():
        networks[name] = network.to(runtime.device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    return networks


def batch_at(images: Tensor, indices: Tensor) -> Tensor:
    """Return images[indices] as float B×C×H×W in [-1, 1] (R×B×…: of R×B), channels_last, on the images' device."""
    chosen = images[indices.flatten().to(images.device, non_blocking=True)]
    # Allocated in its layout first: of images with one channel, a conversion would leave the strides as they are.
    batch = torch.empty(chosen.shape, device=images.device, memory_format=torch.channels_last)
    return batch.copy_(chosen).div_(127.5).sub_(1).unflatten(0, indices.shape)


def train(
    data: Data,  # on the runtime's device
    family: Family,  # the recipe
    config: ModelConfig,  # the networks
    runtime: Runtime,  # device and precision
    streams: Streams,  # this member's random numbers
    state: State,  # fresh from `build`, or restored
    start: int = 0,  # images seen before the budget began
) -> Iterator[State]:
    """Train `state` to the end of the family's budget, yielding it after every step.

    A restored state continues as if it had never stopped: every random draw depends on the images seen alone. Dropout
    and augmentation draw from torch's global stream, seeded anew at each step. Raises `Unhealthy` when a loss is no
    longer finite or explodes, or the output collapses.
    """
    if not len(data):
        raise ChorusError("the train split is empty; give more images or a larger data.splits.train")
    objective = objective_of(family, config, runtime, streams.replicas)
    batch = family.batch
    total, snapshots = schedule(family, start)
    every = max(1, total // ROWS)
    # Distinct ones: among those of a bootstrap, near duplicates are nothing unusual.
    compared = batch_at(data.images, streams.order(0, min(health.DRAWN, len(data.images)), len(data.images)))
    monitor = health.Monitor(compared, objective, runtime, streams)
    if state.nimg == 0:
        monitor.begin(state)

    averages = Averages(state, family)
    for done in range(state.nimg // batch + 1, total + 1):
        given = draw_batch(data, objective, streams, state.nimg, done - 1)
        state.sums += take_step(objective, state, given, streams.seed_of("dropout", state.nimg))
        state.steps += 1
        state.nimg += batch
        averages.follow(state.nimg)

        state.snapshot = done in snapshots
        state.healthy = False
        state.row = None
        if health.is_due(state.nimg, batch):
            mean_losses(state, streams)
            monitor.examine(state)
        elif done == total:
            monitor.look_for_broken_numbers(state)
        if done % every == 0 or state.snapshot:
            state.row = finish_row(state, streams)
        if state.snapshot:
            settle(state, family, runtime, streams)
        yield state


class Averages:
    """The moving averages of a state's generator, as lists of parameters: finding these anew at each step costs time.

    A state's networks stay the same objects while it is trained.
    """

    def __init__(self, state: State, family: Family) -> None:
        self.family = family
        self.weights: list[Tensor] = list(state.networks["generator"].parameters())
        self.plain: list[Tensor] = list(state.average.parameters())
        self.profiles: list[tuple[float, list[Tensor]]] = [
            (ema.exponent(width), list(profile.parameters())) for width, profile in state.profiles.items()
        ]

    def follow(self, nimg: int) -> None:
        """Let all averages take in the weights after a step that ends at `nimg` images."""
        batch, halflife = self.family.batch, 1000 * self.family.ema_halflife_kimg
        ema.update(self.plain, self.weights, ema.ema_decay(batch, nimg, halflife, self.family.rampup))
        for gamma, profile in self.profiles:
            ema.update(profile, self.weights, ema.power_decay(batch, nimg, gamma))


def draw_batch(data: Data, objective: Objective, streams: Streams, nimg: int, step: int) -> Batch:
    """Return what the step after `nimg` images trains on."""
    batch, n = objective.family.batch, len(data)
    real, labels = data.at(streams.each(lambda own: own.order(nimg, batch, n)))
    z = streams.each(lambda own: own.normal(batch, objective.noise, purpose="latent", nimg=nimg))
    return Batch(real, z.to(objective.runtime.device, non_blocking=True), labels, step)


def mean_losses(state: State, streams: Streams) -> dict[str, float]:
    """Return the mean losses since the last row; raises `Unhealthy` where one is not finite or exploded."""
    means = dict(zip(state.columns, (state.sums / state.steps).tolist(), strict=True))
    if fault := health.fault_of_losses(means):
        raise health.Unhealthy(streams, state.nimg, fault)
    return means


def finish_row(state: State, streams: Streams) -> dict[str, float]:
    """Add the mean losses since the last row to the history; raises `Unhealthy` as `mean_losses` does."""
    row = {"nimg": state.nimg, **mean_losses(state, streams)}
    state.sums.zero_()
    state.steps = 0
    state.history.append(row)
    return row


def settle(state: State, family: Family, runtime: Runtime, streams: Streams) -> None:
    """Measure the batch-norm statistics of the averaged generators, in place, so that they can be stored and sampled.

    One replica after another, as a mean over batches is no function that runs stacked.
    """
    pairs = zip(parts_of(state.average), parts_of(state.networks["generator"]), streams.parts, strict=True)
    for average, network, own in pairs:
        settle_one(average, network, family.batch, runtime, own)


def settle_one(average: Any, network: nn.Module, batch: int, runtime: Runtime, streams: Streams) -> None:
    """Measure the batch-norm statistics of one averaged generator, in place, on `SETTLE` batches."""

    def inputs(draw: int) -> tuple[Tensor, Tensor | None]:
        z = streams.normal(batch, average.latent, purpose=f"statistics{draw}").to(runtime.device)
        y = streams.labels(batch, average.class_shares, purpose=f"statistics{draw}-labels")
        return z, None if y is None else y.to(runtime.device)

    with runtime.autocasting():
        ema.settle_buffers(average, network, map(inputs, range(SETTLE)))
