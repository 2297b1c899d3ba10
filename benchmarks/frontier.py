"""What density ratios gain for what they cost: distance by every extractor against draws per delivered image.

    python benchmarks/frontier.py --projects FOLDER… [--samples 3000] [--picture docs/pictures/frontier.png]

Each FOLDER is a project in which all families are evaluated, and its races run, up to the fusion. For each acceptance
rate the strategy `ratio` is fitted as the fuse stage does it, on its half of val, and so is `latent_ratio` for the rate
of params.yaml; each row is measured on equally many fresh images against the gate split, by the extractors that decide
and by the judges. The best member is the one nearest on val. Means over projects, with intervals of 95 % by Student's t
where they are three or more. As many projects at once as there are cores.
"""

import argparse
import os
import platform
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from fusion_gain_table import FEWEST, interval

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
from pipeline.stages._material import material_of
from pipeline.stages._pool import halves_of_val, read_pool
from pipeline.weights import save_companion

RATES = (1 / 2, 1 / 3, 1 / 4, 1 / 8)
LATENT = "latent_ratio"
BEST = "best member"

Row = dict[str, Any]


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


def rows_of(folder: Path, samples: int) -> list[Row]:
    """Measure a project's best member, the weighted mixture, the ratio at each acceptance rate, and that of latents."""
    project, problem = fitted(folder)
    plans = [(BEST, "best", 1.0), ("weighted mixture", "weighted", 1.0)]
    plans += [(f"ratio, 1/{round(1 / rate)}", "ratio", rate) for rate in RATES]
    plans += [(LATENT, LATENT, problem.settings.min_acceptance)]
    rows: list[Row] = []
    for number, (name, plan, rate) in enumerate(plans):
        settings = problem.settings.model_copy(update={"min_acceptance": rate})
        try:
            fusion = strategy(plan)(replace(problem, settings=settings))
        except NotApplicableError as reason:
            print(f"frontier  {folder.name}  {name}: {reason}", flush=True)
            continue
        with tempfile.TemporaryDirectory() as made:
            sampler = sampler_of(project, fusion, Path(made))
        draws = 1 / fusion.evidence["acceptance"] if fusion.recipe["kind"] == "rejection" else 1.0
        distances = measured(project, sampler, samples, 1000 + number)
        rows.append({"name": name, "draws": draws, "cost": sampler.cost, "distances": distances})
        shown = "  ".join(f"{key} {value:.3f}" for key, value in distances.items())
        print(f"frontier  {folder.name}  {name:<18}{shown}", flush=True)
    return rows


def summed_up(projects: Sequence[list[Row]]) -> list[Row]:
    """Return a row of each name: means, and the shares of the best member's distances with their intervals."""
    by_name = [{row["name"]: row for row in rows} for rows in projects]
    summary: list[Row] = []
    for name in by_name[0]:
        pairs = [(rows[name], rows[BEST]) for rows in by_name if name in rows]
        row: Row = {"name": name, "of": len(pairs), "distances": {}, "shares": {}}
        for key in ("draws", "cost"):
            row[key] = fmean(mine[key] for mine, _ in pairs)
        for ruler in pairs[0][0]["distances"]:
            distances = [(mine["distances"][ruler], best["distances"][ruler]) for mine, best in pairs]
            row["distances"][ruler] = fmean(mine for mine, _ in distances)
            row["shares"][ruler] = interval([mine / best for mine, best in distances])
        summary.append(row)
    return summary


def table(rows: list[Row]) -> str:
    """Return the rows as Markdown: each distance, and how much lower it is than the best member's."""
    names = list(rows[0]["distances"])
    lines = [f"| | {' | '.join(names)} | draws | passes |", "|---|" + "---:|" * (len(names) + 2)]
    for row in rows:
        cells = []
        for name in names:
            share, half = row["shares"][name]
            certain = f" ± {half * 100:.0f}" if row["of"] >= FEWEST else ""
            cells.append(f"{row['distances'][name]:.2f} ({share - 1:+.0%}{certain})")
        lines.append(f"| {row['name']} | {' | '.join(cells)} | {row['draws']:.1f} | {row['cost']:.1f} |")
    return "\n".join(lines)


def picture(rows: list[Row], judges: list[str], path: Path) -> None:
    """Draw each extractor's distance, as a share of the best member's, against draws per image; judges are thick."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7.5, 4))
    drawn = [row for row in rows if row["name"] not in (BEST, LATENT)]
    latent = [row for row in rows if row["name"] == LATENT]
    for name in rows[0]["distances"]:
        judge = name in judges
        shown = f"{name} ({'judge' if judge else 'decides'})"

        def bars(some: list[Row], form: str, of: str = name, thick: bool = judge, **style: Any) -> Any:
            shares, halves = zip(*(row["shares"][of] for row in some), strict=True)
            certain = halves if min(row["of"] for row in some) >= FEWEST else None
            line = axis.errorbar([row["draws"] for row in some], shares, certain, fmt=form, capsize=3, **style)
            line[0].set_linewidth(2.5 if thick else 1)
            return line[0].get_color()

        colour = bars(drawn, "o-", markersize=4, label=shown)
        if latent:
            bars(latent, "D", color=colour, markersize=8, markerfacecolor="white")
    if latent:
        axis.plot([], [], "D", color="#555555", markerfacecolor="white", label=f"{LATENT}, of one draw")
    axis.axhline(1, color="#555555", linewidth=0.8, linestyle=":")
    axis.set(xlabel="draws per delivered image", ylabel="distance, of the best member's", ylim=(0, None))
    axis.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
    axis.grid(alpha=0.3)
    axis.legend(loc="upper right", frameon=False, fontsize=9)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--projects", type=Path, nargs="+", required=True)
    parser.add_argument("--samples", type=int, default=3000, help="that each row is measured by")
    parser.add_argument("--picture", type=Path)
    chosen = parser.parse_args()
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        rows = summed_up(list(pool.map(partial(rows_of, samples=chosen.samples), chosen.projects)))
    project = Project.load(chosen.projects[0])
    judges = store.read_reference(project.reference)["judges"]
    if chosen.picture:
        picture(rows, [store.read_ruler(project.reference, name).name for name in judges], chosen.picture)
    print(
        f"\n{chosen.samples:,} images a row against gate; {len(chosen.projects)} projects; judges: {', '.join(judges)}"
    )
    print(f"{platform.machine()}, torch {torch.__version__}\n")
    print(table(rows))


if __name__ == "__main__":
    main()
