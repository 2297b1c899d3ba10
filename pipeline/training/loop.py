"""The training loop of one member. It opens no files and reads no clock: the caller does, between steps."""

import copy
import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from pipeline.compute import Runtime
from pipeline.errors import ChorusError
from pipeline.models._base import ModelConfig, architecture
from pipeline.params import Family
from pipeline.training import ema, losses, steps
from pipeline.training.optimizers import build_optimizer
from pipeline.training.state import State
from pipeline.training.streams import Streams

ROWS = 100  # of the history, for a whole training
SETTLE = 16  # batches that measure the average's batch-norm statistics at a snapshot


def kind(config: ModelConfig) -> str:
    """Return `vae` for an architecture with an encoder, `gan` for any other."""
    return "vae" if architecture(config.architecture).encoder else "gan"


def loss_name(family: Family) -> str:
    """Return the family's loss: for a GAN one of `losses.LOSSES`, for a vae `elbo`."""
    return "elbo" if architecture(family.architecture).encoder else family.loss or losses.DEFAULT


def schedule(family: Family) -> tuple[int, set[int]]:
    """Return the number of steps that the family's budget takes, at least 1, and the steps that end at a snapshot.

    Snapshots are evenly spaced and the last is at the end; a budget of fewer steps than snapshots has one a step.
    """
    total = max(1, math.ceil(family.kimg * 1000 / family.batch))
    return total, {max(1, round(total * k / family.snapshots)) for k in range(1, family.snapshots + 1)}


def build(family: Family, config: ModelConfig, runtime: Runtime, streams: Streams) -> State:
    """Return a member at its start: networks on the device in channels_last, their average, their optimisers."""
    design = architecture(config.architecture)
    opponent, build_opponent = (
        ("encoder", design.encoder) if design.encoder else ("discriminator", design.discriminator)
    )
    assert build_opponent is not None
    with torch.random.fork_rng():
        torch.manual_seed(streams.seed_of("weights"))
        networks = {"generator": design.generator(config), opponent: build_opponent(config)}
    for name, network in networks.items():
        networks[name] = network.to(runtime.device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    rates = {"generator": family.lr, opponent: family.lr_discriminator or family.lr}
    columns = steps.VARIATIONAL if design.encoder else steps.ADVERSARIAL
    return State(
        networks=networks,
        average=copy.deepcopy(networks["generator"]).eval().requires_grad_(False),
        optimizers={name: build_optimizer(network, family, rates[name]) for name, network in networks.items()},
        columns=columns,
        sums=torch.zeros(len(columns), device=runtime.device),
    )


def batch_at(images: Tensor, indices: Tensor) -> Tensor:
    """Return images[indices] as float B×C×H×W in [-1, 1], channels_last, on the images' device."""
    chosen = images[indices.to(images.device, non_blocking=True)]
    # Allocated in its layout first: of images with one channel, a conversion would leave the strides as they are.
    batch = torch.empty(chosen.shape, device=images.device, memory_format=torch.channels_last)
    return batch.copy_(chosen).div_(127.5).sub_(1)


def train(
    images: Tensor,  # uint8 N×C×H×W, on the runtime's device for the whole training
    family: Family,  # the recipe
    config: ModelConfig,  # the networks
    runtime: Runtime,  # device and precision
    streams: Streams,  # this member's random numbers
    state: State,  # fresh from `build`, or restored
) -> Iterator[State]:
    """Train `state` to the end of the family's budget, yielding it after every step.

    A restored state continues as if it had never stopped: every random draw depends on the images seen alone. Dropout
    draws from torch's global stream, seeded anew at each step. Raises `ChorusError` when a loss is no longer finite.
    """
    if not len(images):
        raise ChorusError("the train split is empty; give more images or a larger data.splits.train")
    batch, device = family.batch, runtime.device
    total, snapshots = schedule(family)
    every = max(1, total // ROWS)
    if kind(config) == "vae":
        kl_weight = 1.0 if family.kl_weight is None else family.kl_weight
        step = partial(steps.variational_step, kl_weight=kl_weight)
    else:
        step = partial(steps.adversarial_step, loss=losses.LOSSES[loss_name(family)])

    for done in range(state.nimg // batch + 1, total + 1):
        real = batch_at(images, streams.order(state.nimg, batch, len(images)))
        z = streams.normal(batch, config.latent, purpose="latent", nimg=state.nimg).to(device, non_blocking=True)
        torch.manual_seed(streams.seed_of("dropout", state.nimg))
        state.sums += step(state.networks, state.optimizers, real, z, runtime=runtime)
        state.steps += 1
        state.nimg += batch
        decay = ema.ema_decay(batch, state.nimg, 1000 * family.ema_halflife_kimg, family.ema_rampup)
        ema.update(state.average, state.networks["generator"], decay)

        state.snapshot = done in snapshots
        state.row = None
        if done % every == 0 or state.snapshot:
            state.row = finish_row(state, streams)
        if state.snapshot:
            settle(state, family, runtime, streams)
        yield state


def finish_row(state: State, streams: Streams) -> dict[str, float]:
    """Add the mean losses since the last row to the history; raises `ChorusError` where one is not finite."""
    means = (state.sums / state.steps).tolist()
    state.sums.zero_()
    state.steps = 0
    row = {"nimg": state.nimg, **dict(zip(state.columns, means, strict=True))}
    broken = [name for name, value in row.items() if not math.isfinite(value)]
    if broken:
        raise ChorusError(
            f"training {streams.family}/r{streams.replica}: {', '.join(broken)} is no longer a number after "
            f"{state.nimg / 1000:g} kimg; lower families.{streams.family}.lr, or set compute.precision to fp32"
        )
    state.history.append(row)
    return row


def settle(state: State, family: Family, runtime: Runtime, streams: Streams) -> None:
    """Measure the batch-norm statistics of the averaged generator, in place, so that it can be stored and sampled."""
    length = int(state.average.latent)  # type: ignore[arg-type]
    draws = (streams.normal(family.batch, length, purpose=f"statistics{i}") for i in range(SETTLE))
    with runtime.autocasting():
        ema.settle_buffers(state.average, state.networks["generator"], (z.to(runtime.device) for z in draws))
