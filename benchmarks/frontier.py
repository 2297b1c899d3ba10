"""What the density ratio gains for what it costs: distance by every extractor against draws per delivered image.

    python benchmarks/frontier.py --clone FOLDER [--samples 3000] [--picture docs/pictures/frontier.png]

FOLDER is a clone of the project in which `evaluate` has run for all families. For each acceptance rate the strategy
`ratio` is fitted as the fuse stage does it, on its half of val; each row is measured on equally many fresh images
against the gate split, by the extractors that decide and by the judges. The best member is the one nearest on val.
"""

import argparse
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from pipeline.compute import set_up
from pipeline.evaluation import frechet, store
from pipeline.evaluation.extractors import load_extractors
from pipeline.files import copy_snapshot
from pipeline.fusion.needs import networks_of
from pipeline.fusion.samplers import Sampler, draw
from pipeline.fusion.strategies._base import Fusion, NotApplicableError, Problem, strategy
from pipeline.project import Project
from pipeline.randomness import derive_seed
from pipeline.recipes import load_sampler
from pipeline.report.charts import colour
from pipeline.stages._material import material_of
from pipeline.stages._pool import halves_of_val, read_pool
from pipeline.weights import save_companion

RATES = (1 / 2, 1 / 3, 1 / 4, 1 / 8)
WIDTH, HEIGHT, MARGIN = 520, 300, 46


def fitted(clone: Path) -> tuple[Project, Problem]:
    """Return what the fuse stage fits strategies on."""
    project = Project.load(clone)
    runtime = set_up(project.params.compute)
    rulers = store.deciding_rulers(project.reference)
    extractors = load_extractors(project.reference, [r.extractor for r in rulers], runtime.device, project.weights)
    fit, _ = halves_of_val(project, rulers)
    material = material_of(project, runtime, rulers, extractors)
    seed = derive_seed(project.params.seed, "fuse", "fit")
    return project, Problem.of(read_pool(project, rulers), fit, project.params.fusion, seed, material, rulers)


def sampler_of(project: Project, fusion: Fusion, folder: Path) -> Sampler:
    """Write what the fusion has made to `folder` and build its sampler."""

    def find(name: str) -> Path:
        return folder / name if name.count("/") == 1 else project.snapshot(name)

    for name in networks_of(fusion.recipe):
        if own := fusion.companions.get(name):
            save_companion(find(name), own.config, own.network)
        elif name.startswith("extractors/"):
            copy_snapshot(project.reference / name, find(name), {"model"})
    return load_sampler(fusion.recipe, find)


def measured(project: Project, sampler: Sampler, samples: int, seed: int) -> dict[str, float]:
    """Return the distance of fresh samples to the gate split by each extractor's ruler."""
    reference = store.read_reference(project.reference)
    images, found = draw(sampler, samples, seed=seed), {}
    names = [*reference["selection"], *reference["judges"]]
    for name, extractor in load_extractors(project.reference, names, "cpu", project.weights).items():
        ruler = store.read_ruler(project.reference, name)
        sides = (extractor.features(images).values, store.read_features(project.reference, "gate", name).values)
        fake, real = (frechet.moments(ruler.project(values)) for values in sides)
        found[ruler.name] = frechet.distance(fake, real)
    return found


def rows_of(project: Project, problem: Problem, samples: int) -> list[dict[str, Any]]:
    """Measure the best member, the weighted mixture, and the ratio at each acceptance rate."""
    plans = [("best member", "best", 1.0), ("weighted mixture", "weighted", 1.0)]
    plans += [(f"ratio, 1/{round(1 / rate)}", "ratio", rate) for rate in RATES]
    rows: list[dict[str, Any]] = []
    for row, (name, plan, rate) in enumerate(plans):
        settings = problem.settings.model_copy(update={"min_acceptance": rate})
        try:
            fusion = strategy(plan)(replace(problem, settings=settings))
        except NotApplicableError as reason:
            print(f"frontier  {name}: {reason}", flush=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            sampler = sampler_of(project, fusion, Path(folder))
        draws = 1 / fusion.evidence.get("acceptance", 1.0)
        distances = measured(project, sampler, samples, 1000 + row)
        rows.append({"name": name, "draws": draws, "cost": sampler.cost, "distances": distances})
        shown = "  ".join(f"{key} {value:.3f}" for key, value in distances.items())
        print(f"frontier  {name:<18}{shown}", flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown: each distance, and how much lower it is than the best member's."""
    names, first = list(rows[0]["distances"]), rows[0]["distances"]
    lines = [f"| | {' | '.join(names)} | draws | passes |", "|---|" + "---:|" * (len(names) + 2)]
    for row in rows:
        cells = [f"{row['distances'][n]:.2f} ({row['distances'][n] / first[n] - 1:+.0%})" for n in names]
        lines.append(f"| {row['name']} | {' | '.join(cells)} | {row['draws']:.1f} | {row['cost']:.1f} |")
    return "\n".join(lines)


def picture(rows: list[dict[str, Any]], judges: list[str], path: Path) -> None:
    """Draw each extractor's distance, as a share of the best member's, against draws per image; judges are thick."""
    canvas = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, first = ImageDraw.Draw(canvas), rows[0]["distances"]
    points = rows[1:]
    most = max(row["draws"] for row in points)
    top = max(1.0, *(row["distances"][n] / first[n] for row in points for n in first))

    def place(draws: float, share: float) -> tuple[float, float]:
        across = (draws - 1) / max(most - 1, 1e-9) * (WIDTH - MARGIN - 170)
        return MARGIN + across, HEIGHT - MARGIN - share / top * (HEIGHT - 2 * MARGIN)

    for share in (0, 0.25, 0.5, 0.75, 1):
        pen.line([place(1, share), place(most, share)], fill="#dddddd")
        pen.text((8, place(1, share)[1] - 6), f"{share:.0%}", fill="#555555")
    for row in points:
        pen.text((place(row["draws"], 0)[0] - 8, HEIGHT - MARGIN + 6), f"{row['draws']:.1f}", fill="#555555")
    pen.text((MARGIN, HEIGHT - 20), "draws per delivered image", fill="#555555")
    pen.text((8, 8), "distance to real images, as a share of the best member's", fill="black")
    below = 0.0
    for name in sorted(first, key=lambda n: -points[-1]["distances"][n] / first[n]):
        shade = colour(list(first).index(name)).replace(" ", ",")  # as Pillow reads it
        line = [place(row["draws"], row["distances"][name] / first[name]) for row in points]
        pen.line(line, fill=shade, width=3 if name in judges else 1)
        kind = "judge" if name in judges else "decides"
        below = max(line[-1][1] - 6, below + 12)
        pen.text((line[-1][0] + 8, below), f"{name} ({kind})", fill=shade)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clone", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=3000, help="that each row is measured by")
    parser.add_argument("--picture", type=Path)
    chosen = parser.parse_args()
    began = time.process_time()
    project, problem = fitted(chosen.clone)
    rows = rows_of(project, problem, chosen.samples)
    judges = store.read_reference(project.reference)["judges"]
    if chosen.picture:
        named = [store.read_ruler(project.reference, name).name for name in judges]
        picture(rows, named, chosen.picture)
    print(f"\n{chosen.samples:,} images a row against gate; judges: {', '.join(judges)}")
    print(f"{platform.machine()}, torch {torch.__version__}, {time.process_time() - began:.0f} s of one core\n")
    print(table(rows))


if __name__ == "__main__":
    main()
