"""Every architecture with every loss worth trying, at equal seconds on Fashion-MNIST: one table of held-out distances.

    python benchmarks/members.py --clone FOLDER [--data FOLDER] [--seconds 60] [--only NAME ...] [--pictures FOLDER]

FOLDER of --clone becomes a clone of the project whose `reference` stage has run on Fashion-MNIST (with the parameters
of benchmarks/fashion_mnist.yaml), unless it is one. The families are those of benchmarks/members.yaml. Each is trained
for the same seconds of one core's time, two families at once on two cores; its averaged generator's samples are
compared with the gate split. A second run with the same --clone measures only what is not in its members-SECONDS.json
yet.
"""

import argparse
import json
import math
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from fashion_mnist import prepare_clone

from pipeline.compute import set_up
from pipeline.data.dataset import read_manifest
from pipeline.errors import ChorusError
from pipeline.evaluation import frechet, store
from pipeline.evaluation.extractors import load_extractors
from pipeline.evaluation.pictures import grid, write_png
from pipeline.files import write_json
from pipeline.fusion.samplers import CandidateSampler, draw
from pipeline.params import Compute, Family
from pipeline.project import Project
from pipeline.stages.train import load_data, model_config
from pipeline.training import loop
from pipeline.training.streams import Streams

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "benchmarks" / "members.yaml"
EXTRACTORS = ("classifier", "classifier-b", "selfsup")
SAMPLES = 5000
SHOWN = 64


def refer(clone: Path, data: Path) -> None:
    """Prepare Fashion-MNIST and train the extractors in `clone`, unless that is done."""
    if (clone / "data" / "reference" / "reference.json").exists():
        return
    prepare_clone(clone, data)
    environment = {**os.environ, "PYTHONPATH": str(clone)}
    for stage in ("ingest", "prepare", "reference"):
        subprocess.run([sys.executable, "-m", "pipeline", stage], cwd=clone, env=environment, check=True)


def measure(clone: Path, name: str, recipe: dict[str, Any], seconds: float, pictures: Path | None) -> dict[str, Any]:
    """Train one family's first member for `seconds` of this process's time and return its row of the table."""
    runtime = set_up(Compute())
    project = Project.load(clone)
    family = Family(**{"kimg": 5000, **recipe})  # more than the seconds allow
    config = model_config(family, read_manifest(project.prepared))
    data, streams = load_data(project, family, runtime), Streams(0, name, 0)
    state = loop.build(family, config, runtime, streams)
    row: dict[str, Any] = {"loss": family.loss or family.objective, "conditional": family.conditional}
    began = time.process_time()
    try:
        for _ in loop.train(data, family, config, runtime, streams, state):
            if time.process_time() - began > seconds:
                break
    except ChorusError as error:
        return {**row, "failed": str(error)}
    spent = time.process_time() - began
    loop.settle(state, family, runtime, streams)
    sampler = CandidateSampler(state.average, runtime.device)
    began = time.process_time()
    images = draw(sampler, SAMPLES, seed=0)
    row |= {"kimg": state.nimg / 1000, "trained": state.nimg / spent, "drawn": SAMPLES / (time.process_time() - began)}
    row["parameters"] = sum(p.numel() for p in state.average.parameters())
    for extractor, network in load_extractors(project.reference, EXTRACTORS, runtime.device, {}).items():
        ruler = store.read_ruler(project.reference, extractor)
        real = store.read_features(project.reference, "gate", extractor)
        sides = [ruler.project(features.values) for features in (network.features(images), real)]
        row[ruler.name] = frechet.distance(frechet.moments(sides[0]), frechet.moments(sides[1]))
    if pictures:
        write_png(pictures / f"{name}.png", grid(images[:SHOWN]))
    return row


def worker(clone: Path, queue: Any, results: Any, seconds: float, pictures: Path | None) -> None:
    """Measure families until the queue gives None."""
    while (item := queue.get()) is not None:
        name, recipe = item
        results.put((name, measure(clone, name, recipe, seconds, pictures)))


def table(rows: dict[str, dict[str, Any]], floor: dict[str, float]) -> str:
    """Return the rows as Markdown, the best by the geometric mean of the distances first."""
    names = list(floor)
    order = sorted(rows, key=lambda name: _mean(rows[name], names))
    head = ["family", "loss", *names, "kimg", "img/s trained", "img/s drawn", "parameters"]
    lines = [f"| {' | '.join(head)} |", "|---|---|" + "---:|" * (len(head) - 2)]
    for name in order:
        row = rows[name]
        if "failed" in row:
            lines.append(f"| {name} | {row['loss']} | failed: {row['failed']} |" + " |" * (len(head) - 3))
            continue
        numbers = [f"{row[n]:.2f}" for n in names] + [f"{row[n]:,.0f}" for n in ("kimg", "trained", "drawn")]
        size = f"{row['parameters'] / 1e6:.2f} M"
        lines.append(f"| {' | '.join([name, row['loss'], *numbers, size])} |")
    floors = [f"{floor[n]:.2f}" for n in names]
    return "\n".join([*lines, f"| real images | | {' | '.join(floors)} |" + " |" * 4])


def _mean(row: dict[str, Any], names: list[str]) -> float:
    """Geometric mean of a row's distances; infinite for one that failed."""
    if "failed" in row:
        return math.inf
    return math.exp(float(np.mean([math.log(max(row[name], 1e-9)) for name in names])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clone", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="Fashion-MNIST in torchvision's layout, for a new clone")
    parser.add_argument("--seconds", type=float, default=60, help="of one core, for each family")
    parser.add_argument("--only", nargs="*", help="names of families, or their beginnings")
    parser.add_argument("--pictures", type=Path, help="folder that gets each family's samples")
    chosen = parser.parse_args()
    if chosen.data is None and not chosen.clone.exists():
        parser.error("a new clone needs --data")
    refer(chosen.clone, chosen.data)
    recipes = yaml.safe_load(RECIPES.read_text())
    if chosen.only:
        recipes = {n: r for n, r in recipes.items() if any(n.startswith(beginning) for beginning in chosen.only)}
    known = chosen.clone / f"members-{chosen.seconds:g}.json"
    before = json.loads(known.read_text()) if known.exists() else {}
    rows = {name: before[name]["row"] for name in recipes if before.get(name, {}).get("recipe") == recipes[name]}
    context = multiprocessing.get_context("spawn")
    queue, results = context.Queue(), context.Queue()
    missing = [name for name in recipes if name not in rows]
    workers = [
        context.Process(target=worker, args=(chosen.clone, queue, results, chosen.seconds, chosen.pictures))
        for _ in range(min(len(missing), len(os.sched_getaffinity(0))))
    ]
    for process in workers:
        process.start()
    for item in [*((name, recipes[name]) for name in missing), *(None for _ in workers)]:
        queue.put(item)
    for done in range(len(missing)):
        name, row = results.get()
        rows[name] = row
        before[name] = {"recipe": recipes[name], "row": row}
        write_json(known, before)
        print(f"members  {name} ({done + 1} of {len(missing)})", flush=True)
    for process in workers:
        process.join()
    floor = store.read_reference(chosen.clone / "data" / "reference")["floors"]["held_out"]
    names = [store.read_ruler(chosen.clone / "data" / "reference", extractor).name for extractor in EXTRACTORS]
    print(f"\n{chosen.seconds:g} seconds of one core each, of {os.cpu_count()} cores of {platform.machine()},")
    print(f"torch {torch.__version__}; {SAMPLES:,} images against the gate split\n")
    print(table(rows, {name: floor[name] for name in names}))


if __name__ == "__main__":
    main()
