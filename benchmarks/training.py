"""Throughput of every architecture: a plain PyTorch loop of the same networks against this project's, in one run.

    python benchmarks/training.py [--quick] [--only NAME ...] [--seconds 3] [--repetitions 3] [--size 32] [--channels 3]

Plain: fp32, default layout, torch's own Adam, no moving average, one member after another with all cores. Ours: the
project's loop; one member with all cores, or two at once with half of the cores each, or four, two in each of these
processes in turn. Both count images seen by an update of all networks. Phases alternate, and ratios are taken within a
repetition, so that what else the machine does weighs on both. Share: operations that ours takes (two members) of what
bfloat16 matrix products of 4096×1024×1024 do in the same processes; `as plain` counts the plain networks' operations.
With a GPU, a second table: dcgan's replicas trained as one.
"""

import argparse
import itertools
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, softplus
from torch.utils.flop_counter import FlopCounterMode

import pipeline.models
from pipeline.compute import Runtime, set_up
from pipeline.layers.convolutional import initialise, pyramid
from pipeline.models import resnet
from pipeline.models._base import ModelConfig, build_discriminator, build_generator
from pipeline.params import Compute, Family
from pipeline.params.fields import registered
from pipeline.training import loop
from pipeline.training.cost import FORMULAS, flops_per_image
from pipeline.training.objectives._base import Batch, objective_for
from pipeline.training.state import State
from pipeline.training.streams import Streams

WIDTHS = {"resnet": 256}  # as in SNGAN's table 4; others have 64
LATENT, BATCH, WARM_UP = 100, 64, 2
FUSED = (1, 2, 4, 8, 16)
PRODUCT = (4096, 1024, 1024)
CORES = len(os.sched_getaffinity(0))
Steps = Iterator[Any]


def recipe(name: str, size: int, channels: int) -> tuple[Family, ModelConfig]:
    """Return an architecture's benchmark; its learning rate is too low to leave the start."""
    width = WIDTHS.get(name, 64)
    family = Family(architecture=name, width=width, latent=LATENT, batch=BATCH, kimg=1e9, lr=1e-5)
    return family, ModelConfig(name, channels, size, LATENT, width)


def images_of(config: ModelConfig, device: torch.device | str = "cpu") -> Tensor:
    """Return images that are all alike, so that no generator's variety is found wanting."""
    random = torch.Generator().manual_seed(0)
    one = torch.randint(256, (1, config.channels, config.size, config.size), dtype=torch.uint8, generator=random)
    return one.repeat(64 * BATCH, 1, 1, 1).to(device)


def dcgan_networks(config: ModelConfig) -> tuple[nn.Module, nn.Module]:
    """Return DCGAN's generator and discriminator, of the same shapes as the project's, from torch's layers alone."""
    base, channels = pyramid(config.size, config.width)
    unflatten = nn.Unflatten(1, (config.latent, 1, 1))
    generator: list[nn.Module] = [unflatten, nn.ConvTranspose2d(config.latent, channels[0], base, bias=False)]
    for before, after in pairwise([*channels, config.channels]):
        generator += [nn.BatchNorm2d(before), nn.ReLU(True)]
        generator += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=after == config.channels)]
    channels = channels[::-1]
    discriminator: list[nn.Module] = [nn.Conv2d(config.channels, channels[0], 4, 2, 1)]
    for before, after in pairwise(channels):
        discriminator += [nn.LeakyReLU(0.2, True), nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after)]
    discriminator += [nn.LeakyReLU(0.2, True), nn.Conv2d(channels[-1], 1, base), nn.Flatten(0)]
    networks = nn.Sequential(*generator, nn.Tanh()), nn.Sequential(*discriminator)
    for network in networks:
        initialise(network)
    return networks


def plain(family: Family, config: ModelConfig, device: torch.device) -> Steps:
    """Train as public code does, yielding after each step."""
    # The residual blocks as the paper writes them; the project's are the same functions of the same weights.
    vars(resnet)["conv_halved"] = lambda layer, maps: avg_pool2d(layer(maps), 2)
    vars(resnet)["doubled_conv"] = lambda layer, maps: layer(resnet.double(maps))
    images = images_of(config, device)
    shuffled = (rows for _ in itertools.count() for rows in torch.randperm(len(images)).split(BATCH))
    batches = (images[rows].float() / 127.5 - 1 for rows in shuffled)
    if family.objective == "adversarial":
        yield from plain_adversarial(config, batches, device)
    objective = objective_for(family, config, Runtime(device, None))
    networks = {name: network.to(device) for name, network in objective.networks().items()}
    optimizers: Any = {name: torch.optim.Adam(n.parameters(), lr=family.lr) for name, n in networks.items()}
    sums = torch.zeros(len(objective.columns), device=device)
    state = State(networks, networks["generator"], optimizers, objective.columns, sums)
    for step, real in enumerate(batches):
        yield objective.step(state, Batch(real, torch.randn(BATCH, objective.noise, device=device), None, step))


def plain_adversarial(config: ModelConfig, batches: Iterator[Tensor], device: torch.device) -> Steps:
    """The usual loop of two networks."""
    if config.architecture == "dcgan":
        generator, discriminator = dcgan_networks(config)
    else:
        generator, critic = build_generator(config), build_discriminator(config)
        assert critic is not None
        discriminator = critic
    generator, discriminator = generator.to(device), discriminator.to(device)
    optimizers = [torch.optim.Adam(n.parameters(), lr=1e-5, betas=(0.5, 0.999)) for n in (generator, discriminator)]
    for real in batches:
        discriminator.zero_grad()
        fake = generator(torch.randn(BATCH, config.latent, device=device))
        softplus(-discriminator(real)).mean().backward()
        softplus(discriminator(fake.detach())).mean().backward()
        optimizers[1].step()
        generator.zero_grad()
        softplus(-discriminator(fake)).mean().backward()
        optimizers[0].step()
        yield


def ours(family: Family, config: ModelConfig, runtime: Runtime, replicas: int = 1, replica: int = 0) -> Steps:
    """Train with the project's loop, yielding after each step."""
    streams = Streams(0, "benchmark", replica, replicas)
    state = loop.build(family, config, runtime, streams)
    return loop.train(loop.Data(images_of(config, runtime.device)), family, config, runtime, streams, state)


def rate(members: list[Steps], seconds: float, finish: Callable[[], None] = lambda: None) -> float:
    """Let members train in turn, each for its part of the seconds and at least a step; return images a second."""
    finish()
    start, count = time.perf_counter(), 0
    for turn, steps in enumerate(members, 1):
        first = count
        while count == first or time.perf_counter() - start < seconds * turn / len(members):
            next(steps)
            count += BATCH
    finish()
    return count / (time.perf_counter() - start)


def peak(seconds: float) -> float:
    """Return operations a second of bfloat16 matrix products, with the threads of this process."""
    n, k, m = PRODUCT
    a, b = torch.randn(n, k).bfloat16(), torch.randn(k, m).bfloat16()
    start, count = time.perf_counter(), 0
    while not count or time.perf_counter() - start < seconds:
        a @ b
        count += 1
    return count * 2 * n * k * m / (time.perf_counter() - start)


def worker(kind: str, name: str, size: int, channels: int, threads: int, orders: Connection) -> None:
    """Follow orders (members, seconds): answer with images a second; (0, seconds): with operations a second."""
    family, config = recipe(name, size, channels)
    if kind == "plain":
        torch.set_num_threads(threads)
        members = [plain(family, config, torch.device("cpu"))]
    else:
        runtime = set_up(Compute(device="cpu", threads=threads))
        members = [ours(family, config, runtime, replica=replica) for replica in range(2)]
    for steps in members:
        for _ in range(WARM_UP):
            next(steps)
    orders.send("ready")
    while (order := orders.recv()) is not None:
        count, seconds = order
        orders.send(rate(members[:count], seconds) if count else peak(seconds))


def together(workers: list[Connection], members: int, seconds: float) -> float:
    """Give all workers the same order at once; return the sum of their answers."""
    for connection in workers:
        connection.send((members, seconds))
    return sum(connection.recv() for connection in workers)


def start(context: Any, kind: str, name: str, chosen: argparse.Namespace, threads: int) -> Connection:
    here, there = context.Pipe()
    order = (kind, name, chosen.size, chosen.channels, threads, there)
    context.Process(target=worker, args=order, daemon=True).start()
    here.recv()
    return here


def plain_flops(family: Family, config: ModelConfig) -> float:
    """Return the plain loop's operations for each image; its discriminator's weights get gradients they do not need."""
    kept = {name: vars(resnet)[name] for name in ("conv_halved", "doubled_conv")}
    steps = plain(family, config, torch.device("cpu"))
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        next(steps)
    vars(resnet).update(kept)
    return counter.get_total_flops() / BATCH


def measure(name: str, chosen: argparse.Namespace) -> None:
    """Print an architecture's row."""
    family, config = recipe(name, chosen.size, chosen.channels)
    context = multiprocessing.get_context("spawn")
    one = [start(context, "plain", name, chosen, CORES)]
    whole = [start(context, "ours", name, chosen, CORES)]
    halves = [start(context, "ours", name, chosen, max(1, CORES // 2)) for _ in range(2)]
    rows, peaks = [], []
    for _ in range(chosen.repetitions):
        phases = ((one, 1), (whole, 1), (halves, 1), (halves, 2))
        rows.append([together(workers, members, chosen.seconds) for workers, members in phases])
        peaks.append(together(halves, 0, chosen.seconds / 3))
    for connection in (*one, *whole, *halves):
        connection.send(None)
    medians = [statistics.median(column) for column in zip(*rows, strict=True)]
    cells = [name, str(config.width), *(f"{value:,.0f}" for value in medians)]
    for column in (1, 2, 3):
        ratios = [row[column] / row[0] for row in rows]
        cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})")
    flops = flops_per_image(family, config), plain_flops(family, config)
    speed = [row[2] / best for row, best in zip(rows, peaks, strict=True)]
    cells += [f"{count / 1e9:.2f}" for count in flops]
    cells += [f"{count * statistics.median(speed):.0%}" for count in flops]
    print(f"| {' | '.join(cells)} |", flush=True)


def measure_gpu(chosen: argparse.Namespace) -> None:
    """Print images a second of dcgan's replicas as one, on the GPU, against members of the plain loop in turn."""
    runtime = set_up(Compute(device="cuda"))
    family, config = recipe("dcgan", chosen.size, chosen.channels)
    before = plain(family, config, runtime.device)
    rate([before], 1, torch.cuda.synchronize)
    print("\n| replicas as one | plain, in turn | ours | ratio |\n|---:|---:|---:|---:|")
    for replicas in FUSED:
        steps = ours(family, config, runtime, replicas)
        rate([steps], 1, torch.cuda.synchronize)
        pairs = []
        for _ in range(chosen.repetitions):
            base = rate([before], chosen.seconds, torch.cuda.synchronize)
            pairs.append((base, replicas * rate([steps], chosen.seconds, torch.cuda.synchronize)))
        base, mine = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(after / base for base, after in pairs)
        print(f"| {replicas} | {base:,.0f} | {mine:,.0f} | {ratio:.2f} |", flush=True)


def main() -> None:
    names = list(registered(pipeline.models))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=names, default=names, metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="one repetition of half a second: to see that it runs")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each phase of a repetition")
    for name, value in {"repetitions": 3, "size": 32, "channels": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.seconds, chosen.repetitions = 0.5, 1
    print(f"{chosen.channels}×{chosen.size}×{chosen.size}, batch {BATCH}; {torch.cpu.get_capabilities()['cpu_name']},")
    print(f"{CORES} cores, torch {torch.__version__}; images a second, ratios: median (lowest–highest)\n")
    heads = ["architecture", "width", "plain", *(f"{n} members" for n in (1, 2, 4)), *(f"ratio {n}" for n in (1, 2, 4))]
    heads += ["GFLOP ours", "GFLOP plain", "share of peak", "as plain"]
    print(f"| {' | '.join(heads)} |\n|---|{'---:|' * (len(heads) - 1)}", flush=True)
    for name in chosen.only:
        measure(name, chosen)
    if torch.cuda.is_available():
        measure_gpu(chosen)


if __name__ == "__main__":
    main()
