"""Throughput of two dcgan members: a plain fp32 loop against this project's loop, alternating in one run.

    python benchmarks/training.py [--seconds 6] [--repetitions 5] [--size 32] [--channels 3] [--width 64] [--batch 64]

Plain: the same networks from torch's own layers as public code writes them, default layout, fp32, the two members one
after the other in one process with all cores. Ours: the two members at once, each in a process with half of the cores.
Both count images seen by a discriminator and a generator update. The ratio is taken within each repetition, so what
else the machine does meanwhile weighs on both sides.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from multiprocessing.connection import Connection

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pipeline.compute import set_up
from pipeline.layers.convolutional import initialise, pyramid
from pipeline.models._base import ModelConfig
from pipeline.params import Compute, Family
from pipeline.training import loop
from pipeline.training.streams import Streams

LATENT = 100
WARM_UP = 8  # steps


def plain_networks(config: ModelConfig) -> tuple[nn.Module, nn.Module]:
    """Return DCGAN's generator and discriminator, of the same shapes as the project's, from torch's layers alone."""
    base, channels = pyramid(config.size, config.width)
    generator: list[nn.Module] = [nn.ConvTranspose2d(config.latent, channels[0], base, bias=False)]
    for before, after in zip(channels, [*channels[1:], config.channels], strict=True):
        generator += [nn.BatchNorm2d(before), nn.ReLU(True)]
        generator += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=len(generator) == 3 * len(channels))]
    channels = channels[::-1]
    discriminator: list[nn.Module] = [nn.Conv2d(config.channels, channels[0], 4, 2, 1)]
    for before, after in pairwise(channels):
        discriminator += [nn.LeakyReLU(0.2, True), nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after)]
    discriminator += [nn.LeakyReLU(0.2, True), nn.Conv2d(channels[-1], 1, base), nn.Flatten(0)]
    networks = nn.Sequential(*generator, nn.Tanh()), nn.Sequential(*discriminator)
    for network in networks:
        initialise(network)
    return networks


def plain(images: Tensor, config: ModelConfig, batch: int) -> Iterator[None]:
    """Train as public code does, yielding after each step."""
    torch.set_num_threads(os.cpu_count() or 1)
    generator, discriminator = plain_networks(config)
    optimizers = [torch.optim.Adam(n.parameters(), lr=2e-4, betas=(0.5, 0.999)) for n in (generator, discriminator)]
    while True:
        for indices in torch.randperm(len(images)).split(batch):
            discriminator.zero_grad()
            real = images[indices].float() / 127.5 - 1
            fake = generator(torch.randn(batch, config.latent, 1, 1))
            softplus(-discriminator(real)).mean().backward()
            softplus(discriminator(fake.detach())).mean().backward()
            optimizers[1].step()
            generator.zero_grad()
            softplus(-discriminator(fake)).mean().backward()
            optimizers[0].step()
            yield


def ours(images: Tensor, config: ModelConfig, batch: int) -> Iterator[None]:
    """Train with the project's loop on half of the cores, yielding after each step."""
    runtime = set_up(Compute(device="cpu", threads=max(1, (os.cpu_count() or 1) // 2)))
    family = Family(architecture="dcgan", width=config.width, latent=config.latent, batch=batch, kimg=1e9, snapshots=1)
    streams = Streams(0, "benchmark", 0)
    for _ in loop.train(
        loop.Data(images), family, config, runtime, streams, loop.build(family, config, runtime, streams)
    ):
        yield


def worker(train: Callable[..., Iterator[None]], config: ModelConfig, batch: int, orders: Connection) -> None:
    """Train for as many seconds as each order says, and answer with images a second."""
    random = torch.Generator().manual_seed(0)
    shape = (64 * batch, config.channels, config.size, config.size)
    steps = train(torch.randint(256, shape, dtype=torch.uint8, generator=random), config, batch)
    for _ in range(WARM_UP):
        next(steps)
    orders.send("ready")
    while seconds := orders.recv():
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            next(steps)
            count += batch
        orders.send(count / (time.perf_counter() - start))


def measure(workers: list[Connection], seconds: float) -> float:
    """Let the workers train at once; return their images a second together."""
    for connection in workers:
        connection.send(seconds)
    return sum(connection.recv() for connection in workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"repetitions": 5, "size": 32, "channels": 3, "width": 64, "batch": 64}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--seconds", type=float, default=6.0)
    chosen = parser.parse_args()
    config = ModelConfig("dcgan", chosen.channels, chosen.size, LATENT, chosen.width)
    spawn = multiprocessing.get_context("spawn")
    sides: dict[str, list[Connection]] = {"plain": [], "ours": []}
    for train in (plain, ours, ours):
        here, there = spawn.Pipe()
        spawn.Process(target=worker, args=(train, config, chosen.batch, there), daemon=True).start()
        here.recv()
        sides[train.__name__].append(here)

    print(
        f"dcgan {chosen.channels}×{chosen.size}×{chosen.size}, width {chosen.width}, batch {chosen.batch}; two members;"
    )
    print(f"{torch.cpu.get_capabilities()['cpu_name']}, {os.cpu_count()} cores, torch {torch.__version__}")
    print(f"{'repetition':>10} {'plain fp32':>12} {'ours':>12} {'ratio':>7}   (images a second)")
    ratios = []
    for repetition in range(1, chosen.repetitions + 1):
        before, after = measure(sides["plain"], chosen.seconds), measure(sides["ours"], chosen.seconds)
        ratios.append(after / before)
        print(f"{repetition:>10} {before:>12,.0f} {after:>12,.0f} {after / before:>7.2f}", flush=True)
    print(f"ratio: median {statistics.median(ratios):.2f}, from {min(ratios):.2f} to {max(ratios):.2f}")
    for connection in sides["plain"] + sides["ours"]:
        connection.send(0)


if __name__ == "__main__":
    main()
