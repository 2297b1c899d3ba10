"""Warm starts on Fashion-MNIST: images that a family needs to reach given distances, warm against cold.

    python benchmarks/warm.py --clone FOLDER [--data FOLDER] [--source 200] [--cold 200] [--warm 72] [--seeds 3]

FOLDER of --clone becomes a clone of the project whose `reference` stage has run on Fashion-MNIST, unless it is one.
Sources are trained for --source thousand images: `yesterday` on half of the training images, `five classes` on those
of the first five classes. From each, members are trained on all training images: with the source's discriminator and
without, against members that start cold. Distances are taken on the gate split, at every --step thousand images.
"""

import argparse
import math
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from members import refer

from pipeline.compute import Runtime, set_up
from pipeline.data.dataset import load_split, read_manifest
from pipeline.evaluation import frechet, store
from pipeline.evaluation.extractors import load_extractors
from pipeline.files import tree_hash
from pipeline.fusion.samplers import CandidateSampler, draw
from pipeline.models._base import ModelConfig
from pipeline.params import Compute, Family, WarmStart
from pipeline.pinning.weights import load
from pipeline.project import Project
from pipeline.stages.train import load_data, model_config
from pipeline.training import loop, warm
from pipeline.training.loop import Data
from pipeline.training.objectives._base import objective_for
from pipeline.training.state import State
from pipeline.training.streams import Streams
from pipeline.weights import save_snapshot

EXTRACTORS = ("classifier", "selfsup")
SAMPLES = 2000
TARGETS = (40, 30, 25, 20, 16)
# Arms by name: where the weights come from, and whether their discriminator is taken too.
ARMS: dict[str, tuple[str | None, bool]] = {
    "cold": (None, False),
    "yesterday": ("yesterday", True),
    "yesterday, without its discriminator": ("yesterday", False),
    "five classes": ("five classes", True),
    "five classes, without its discriminator": ("five classes", False),
}
SOURCES = ("yesterday", "five classes")


@dataclass(frozen=True)
class Setting:
    """What the processes of this benchmark share: the clone, the size of the family, and when to measure.

    step: thousand images between two measurements by the first extractor. until: when the others measure too.
    """

    clone: Path
    width: int
    step: int
    until: float

    def source(self, name: str) -> Path:
        return self.clone / ".warm-benchmark" / name.replace(" ", "-")


class Bench:
    """One process's data, networks and rulers."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.runtime = setting, set_up(Compute())
        self.project = Project.load(setting.clone)
        reference = self.project.reference
        self.extractors = load_extractors(reference, EXTRACTORS, self.runtime.device, {})
        self.rulers = {name: store.read_ruler(reference, name) for name in EXTRACTORS}
        self.real = {n: r.project(store.read_features(reference, "gate", n).values) for n, r in self.rulers.items()}

    def start(self, name: str, seed: int, kimg: float, source: str | None, partner: bool) -> "Member":
        """Return a member that has seen no image."""
        pin = WarmStart(
            source="champion", version=None, content=tree_hash(self.setting.source(source)) if source else None
        )
        family = Family(
            architecture="dcgan", loss="nonsaturating", latent=32, width=self.setting.width, kimg=kimg, warm_start=pin
        )
        config, streams = model_config(family, read_manifest(self.project.prepared)), Streams(seed, name, 0)
        state = loop.build(family, config, self.runtime, streams)
        if source:
            weights = load(self.setting.source(source))
            warm.start(state, weights if partner else {"generator": weights["generator"]})
        return Member(family, config, self.runtime, streams, load_data(self.project, family, self.runtime), state)

    def distances(self, member: "Member") -> dict[str, float]:
        """Distances of the averaged generator's samples to the gate split, by the rulers that measure at this time."""
        at_end = abs(member.state.nimg / 1000 - self.setting.until) < self.setting.step / 2
        loop.settle(member.state, member.family, self.runtime, member.streams)
        images = draw(CandidateSampler(member.state.average, self.runtime.device), SAMPLES, seed=0)
        found = {}
        for name in EXTRACTORS if at_end else EXTRACTORS[:1]:
            ruler = self.rulers[name]
            values = ruler.project(self.extractors[name].features(images).values)
            found[name] = frechet.distance(frechet.moments(values), frechet.moments(self.real[name]))
        return found


@dataclass(frozen=True)
class Member:
    family: Family
    config: ModelConfig
    runtime: Runtime
    streams: Streams
    data: Data
    state: State

    def train(self) -> Iterator[State]:
        yield from loop.train(self.data, self.family, self.config, self.runtime, self.streams, self.state)


def make_source(task: tuple[Setting, str, float]) -> str:
    """Train a source on its part of the images and store its last snapshot."""
    setting, name, kimg = task
    bench = Bench(setting)
    member = bench.start(name, 0, kimg, None, False)
    labels = torch.from_numpy(load_split(bench.project.prepared, "train").labels.copy())
    rows = (labels < 5).nonzero().flatten() if name == "five classes" else torch.arange(0, len(labels), 2)
    member = replace(member, data=replace(member.data, rows=rows))
    for _ in member.train():
        pass
    [networks] = objective_for(member.family, member.config, member.runtime).members(member.state)
    save_snapshot(setting.source(name), member.config, networks)
    return name


def measure(task: tuple[Setting, str, int, float]) -> tuple[str, int, list[tuple[float, dict[str, float]]]]:
    """Train one member of an arm and return its distances by the thousand images it has seen."""
    setting, arm, seed, kimg = task
    bench = Bench(setting)
    member = bench.start("member", seed, kimg, *ARMS[arm])
    course = [(0.0, bench.distances(member))]
    for state in member.train():
        if state.nimg >= (course[-1][0] + setting.step) * 1000:
            course.append((state.nimg / 1000, bench.distances(member)))
    return arm, seed, course


def needed(course: list[tuple[float, dict[str, float]]], target: float) -> float:
    """Thousand images after which the ruler's distance was first at most `target`; infinite where it never was."""
    return next((kimg for kimg, distances in course if distances[EXTRACTORS[0]] <= target), math.inf)


def table(courses: dict[str, list[Any]], names: dict[str, str], until: float) -> str:
    """Return a row for each arm: medians over the seeds, of the images needed and of the distances at `until`."""
    ruler = names[EXTRACTORS[0]]
    head = ["start", f"{ruler} at 0", *(f"kimg to {target}" for target in TARGETS)]
    head += [f"{name} at {until:g}" for name in names.values()]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    for arm, runs in courses.items():
        cells = [arm, f"{statistics.median(run[0][1][EXTRACTORS[0]] for run in runs):.1f}"]
        for target in TARGETS:
            median = statistics.median(needed(run, target) for run in runs)
            cells.append(f"over {runs[0][-1][0]:.0f}" if math.isinf(median) else f"{median:.0f}")
        for name in names:
            values = [next(d[name] for _, d in run if len(d) == len(names)) for run in runs]
            cells.append(f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clone", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="Fashion-MNIST in torchvision's layout, for a new clone")
    parser.add_argument("--source", type=float, default=200, help="thousand images that a source is trained for")
    parser.add_argument("--cold", type=float, default=200, help="thousand images of a member that starts cold")
    parser.add_argument("--warm", type=float, default=72, help="thousand images of a member that starts warm")
    parser.add_argument("--step", type=int, default=8, help="thousand images between two measurements")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--width", type=int, default=16)
    chosen = parser.parse_args()
    if chosen.data is None and not chosen.clone.exists():
        parser.error("a new clone needs --data")
    if chosen.step % 8 or chosen.warm % chosen.step:
        parser.error("--step is whole batches of 64 (a multiple of 8), and --warm a multiple of --step")
    if chosen.cold < chosen.warm:
        parser.error("--cold is compared with --warm after as many images, so it is at least as large")
    refer(chosen.clone, chosen.data)
    setting = Setting(chosen.clone, chosen.width, chosen.step, chosen.warm)
    began = time.monotonic()
    courses: dict[str, list[Any]] = {arm: [] for arm in ARMS}
    with multiprocessing.get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
        for name in pool.imap_unordered(make_source, [(setting, name, chosen.source) for name in SOURCES]):
            print(f"warm  source '{name}' is trained", flush=True)
        budgets = {arm: chosen.warm if source else chosen.cold for arm, (source, _) in ARMS.items()}
        tasks = [(setting, arm, seed, budgets[arm]) for arm in ARMS for seed in range(1, chosen.seeds + 1)]
        for done, (arm, _, course) in enumerate(pool.imap_unordered(measure, tasks), 1):
            courses[arm].append(course)
            print(f"warm  {arm} ({done} of {len(tasks)})", flush=True)
    minutes = (time.monotonic() - began) / 60
    names = {name: store.read_ruler(chosen.clone / "data" / "reference", name).name for name in EXTRACTORS}
    print(
        f"\ndcgan of width {chosen.width}; sources of {chosen.source:g} kimg; medians of {chosen.seeds} seeds (range),"
    )
    print(f"{SAMPLES:,} images against the gate split; {os.cpu_count()} cores of {platform.machine()},")
    print(f"torch {torch.__version__}, {minutes:.1f} minutes\n")
    print(table(courses, names, chosen.warm))


if __name__ == "__main__":
    main()
