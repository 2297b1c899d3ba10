"""The law of ensembles: what K members are worth, predicted from two of them, on data whose modes are known.

    python benchmarks/ensemble_law.py run --data FOLDER --work FOLDER [--repetitions 2] [--grid narrow]
    python benchmarks/ensemble_law.py table [--figure docs/pictures/ensemble_law.png] [--grid narrow]

FOLDER of --data holds MNIST in torchvision's layout. One recipe is trained on Stacked-MNIST (1,000 modes): for each K
of 1, 2, 4, 8, 16 half of the members that share the largest budget between K. The other half are snapshots of those
that are trained longer, for the learning rate is constant and the average's ramp-up knows no end: a snapshot is what a
shorter training ends as. Of every member's budget b and every K with K·b up to the largest budget, ensembles of K
members with equal weights are measured on 26,000 images; a classifier of single digits reads their modes.
All of them are predicted from two members: distances by the ambiguity identity, the modes found and KL from how the two
differ from mode to mode (benchmarks/law.py). Lines are appended to benchmarks/results/ensemble_law.jsonl, a repetition
at a time; a run that was ended goes on with the training that it was at.
--grid: `narrow` has networks of half the width, which stop getting better within the budget; `full` is for a GPU, with
four times the budget, wider networks and replicas that are trained as one. It has not been run.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import law_table
import yaml
from fusion_gain import at_once
from law_measure import Eye, Line, measure
from stacked_mnist import accuracy, prepare, read_digits, reader_at

from pipeline.compute import set_up
from pipeline.data.dataset import read_manifest
from pipeline.files import write_text
from pipeline.params import Family
from pipeline.params.reading import read_params
from pipeline.stages.train import model_config
from pipeline.training.cost import flops_per_image

ROOT = Path(__file__).parents[1]
SIZES = (1, 2, 4, 8, 16)
LARGEST = max(SIZES)  # budget, in units of the smallest
ACCURACY = 0.985  # of the reader, below which modes are not known


@dataclass(frozen=True)
class Grid:
    """kimg: a member's smallest budget. width: of its networks. replicas: as `training.replicas`."""

    name: str
    kimg: float
    width: int
    replicas: str

    @property
    def results(self) -> Path:
        return ROOT / "benchmarks" / "results" / f"{self.name}.jsonl"

    def family(self, size: int) -> dict[str, Any]:
        """Return the recipe of the members that an ensemble of this size adds; a snapshot at each smallest budget."""
        recipe = {"architecture": "dcgan", "loss": "nonsaturating", "lr": 0.001, "batch": 32, "latent": 64}
        steps = LARGEST // size
        own = {"replicas": max(size // 2, 1), "kimg": self.kimg * steps, "snapshots": steps}
        return {**recipe, "width": self.width, **own}


GRIDS = {
    "reduced": Grid("ensemble_law", 25.6, 16, "sequential"),
    "narrow": Grid("ensemble_law-narrow", 25.6, 8, "sequential"),
    "full": Grid("ensemble_law-full", 102.4, 64, "fused"),
}


def sizes_at(level: int) -> list[int]:
    """Return how many members with `level` times the smallest budget the largest one is enough for."""
    return [size for size in SIZES if size * level <= LARGEST]


def read_lines(grid: Grid) -> list[Line]:
    """Return the lines of all repetitions that are complete."""
    return [json.loads(line) for line in grid.results.read_text().splitlines()] if grid.results.exists() else []


def project(grid: Grid, work: Path, seed: int) -> Path:
    """Return the project of a repetition; its images are shared."""
    root = work / f"{grid.name}-{seed}"
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params |= {"seed": seed, "families": {f"k{size}": grid.family(size) for size in SIZES}, "students": {}}
    params["training"] = {"replicas": grid.replicas}
    params["data"] |= {"source": "mnist", "size": 28, "channels": 3}
    (root / "data").mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    if not (root / "data" / "prepared").exists():
        (root / "data" / "prepared").symlink_to(work / "prepared")
    return root


def training(root: Path, family: str) -> Callable[[], None]:
    """Return what trains a family, unless it is there; a training that was ended goes on."""

    def train() -> None:
        if (root / "models" / "members" / "rung1" / family / "family.json").exists():
            return
        command = [sys.executable, "-m", "pipeline", "train", family]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with (root / f"{family}.log").open("a") as log:
            subprocess.run(command, cwd=root, env=environment, stdout=log, stderr=subprocess.STDOUT, check=True)

    return train


def snapshots(grid: Grid, root: Path) -> dict[int, list[Path]]:
    """Return the snapshots of all members that reached a budget, by its multiple of the smallest."""
    trained = [root / "models" / "members" / "rung1" / f"k{size}" for size in SIZES]
    names = {level: f"{round(level * grid.kimg * 1000):09d}" for level in SIZES}
    return {
        level: [path for family in trained for path in sorted(family.glob(f"r*/{name}"))]
        for level, name in names.items()
    }


def run(chosen: argparse.Namespace, grid: Grid) -> None:
    """Train and measure the repetitions that are missing."""
    work, device = chosen.work.resolve(), set_up(read_params(ROOT / "params.yaml").compute).device
    digits, prepared = read_digits(chosen.data), work / "prepared"
    if not (prepared / "manifest.json").exists():
        prepare(digits, prepared, seed=0)
    reader = reader_at(work / "reader.safetensors", digits, 0, device)
    right = accuracy(reader, *digits["gate"], device)
    print(f"the reader names {right:.2%} of the held-out digits rightly", flush=True)
    if right < ACCURACY:
        raise SystemExit("that is too little to count modes by: train it longer")
    done = {line["seed"] for line in read_lines(grid)}
    for seed in (seed for seed in range(chosen.repetitions) if seed not in done):
        root = project(grid, work, seed)
        tasks = [training(root, f"k{size}") for size in (1, *sorted(SIZES[1:], reverse=True))]  # the longest first
        for together in [tasks] if device.type == "cpu" else [[task] for task in tasks]:
            at_once(together)
        recipe = Family(**grid.family(1))
        cost = flops_per_image(recipe, model_config(recipe, read_manifest(prepared)))
        lines = list(measure(snapshots(grid, root), sizes_at, seed, Eye(reader, prepared, device)))
        lines.append({"kind": "end", "seed": seed, "reader": right, "flops_per_image": cost})
        write_text(grid.results, "".join(json.dumps(line) + "\n" for line in read_lines(grid) + lines))
        print(f"repetition {seed}: done", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running, showing = commands.add_parser("run"), commands.add_parser("table")
    running.add_argument("--data", type=Path, required=True)
    running.add_argument("--work", type=Path, required=True)
    running.add_argument("--repetitions", type=int, default=2)
    showing.add_argument("--figure", type=Path, help="draws all grids that have results")
    for command in (running, showing):
        command.add_argument("--grid", choices=GRIDS, default="reduced")
    chosen = parser.parse_args()
    grid = GRIDS[chosen.grid]
    if chosen.command == "run":
        run(chosen, grid)
        return
    lines = read_lines(grid)
    if not lines:
        raise SystemExit(f"{grid.results} has no whole repetition yet: run the benchmark first")
    print(law_table.tables(law_table.Results(lines)))
    if chosen.figure:
        found = {f"width {one.width}": read_lines(one) for one in GRIDS.values()}
        law_table.draw({name: law_table.Results(lines) for name, lines in found.items() if lines}, chosen.figure)


if __name__ == "__main__":
    main()
