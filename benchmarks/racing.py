"""One budget on Fashion-MNIST three ways: raced, split evenly, and (where asked for) all of it for one family.

    python benchmarks/racing.py --data FOLDER [--clone FOLDER] [--tflop 24] [--keep 0.3] [--seeds 3] [--alone …]

FOLDER of --data holds Fashion-MNIST in torchvision's layout (or gets it, where the network allows). The families are
those of benchmarks/racing.yaml, the rest of the parameters those of benchmarks/fashion_mnist.yaml with fewer samples.
Each way is a run of the whole pipeline in the same clone, so a seed's data and extractors are made once; the race has
three rungs. Run it again with the same --clone to go on after an interruption.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from fashion_mnist import prepare_clone

ROOT = Path(__file__).parents[1]
FAMILIES = ROOT / "benchmarks" / "racing.yaml"
RUNGS = [{"rung": 2, "after": 1}, {"rung": 3, "after": 2}]
SAMPLES = 3000
RACED = "raced"


def sections(
    seed: int, tflop: float, families: dict[str, Any], rungs: list[dict[str, int]], keep: float
) -> dict[str, Any]:
    """Return what one way of spending the budget changes in params.yaml."""
    return {
        "seed": seed,
        "budget": {"tflop": tflop, "families": len(families)},
        "racing": {"rungs": rungs, "keep": keep, "branch": 1},
        "families": families,
        "reference": {"kimg": 40},
        "evaluation": {"samples": SAMPLES},
        "judge": {"samples": SAMPLES},
        "fusion": {"strategies": ["best", "uniform", "weighted"]},
    }


def run(clone: Path, base: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    """Run the pipeline in the clone with these parameters; return what a row of the table is made from."""
    (clone / "params.yaml").write_text(yaml.safe_dump({**base, **changed}, sort_keys=False))
    began = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(clone)}
    subprocess.run([sys.executable, "-m", "flows.retrain"], cwd=clone, env=environment, check=True)
    minutes = (time.monotonic() - began) / 60
    metrics = json.loads((clone / "report" / "metrics.json").read_text())
    tables = sorted((clone / "evaluation" / "race").glob("rung*/table.json"))
    return {
        "minutes": minutes,
        "metrics": metrics,
        "trained": trained(clone, changed["families"]),
        "race": [json.loads(path.read_text()) for path in tables] if changed["racing"]["rungs"] else [],
    }


def trained(clone: Path, families: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Return each family's images, in thousands, and its TFLOP over all rungs, as the rosters say."""
    found = {}
    for family in families:
        rosters = [
            json.loads(path.read_text())
            for path in sorted((clone / "models" / "members").glob(f"rung*/{family}/*.json"))
        ]
        kimg = sum(len(roster["members"]) * roster.get("kimg", 0.0) for roster in rosters)
        found[family] = (kimg, kimg * rosters[0]["flops_per_image"] / 1e9)
    return found


def names_of(metrics: dict[str, Any]) -> list[str]:
    """Return which distances are shown: by each judge, and the one that decides."""
    return [*metrics["headline"], metrics["decided_by"]]


def distances(metrics: dict[str, Any], kind: str) -> list[float]:
    """Return the distances of the best member, or of the winning strategy."""
    name = metrics["best_member"] if kind == "member" else metrics["winner"]
    (arm,) = (arm for arm in metrics["arms"] if (arm["name"], arm["kind"]) == (name, kind))
    return [arm["metrics"][metric] for metric in names_of(metrics)]


def row(*cells: object) -> str:
    """Return a row of a Markdown table; numbers with three digits."""
    return f"| {' | '.join(f'{cell:.3g}' if isinstance(cell, float) else str(cell) for cell in cells)} |"


def table(results: dict[tuple[int, str], dict[str, Any]]) -> str:
    """Return a row for the best member and one for the fusion of each seed and way, as Markdown."""
    first = next(iter(results.values()))["metrics"]
    names = names_of(first)
    lines = [row("seed", "budget", "arm", *names, "TFLOP", "minutes"), "|---:|---|---|" + "---:|" * (len(names) + 2)]
    for (seed, way), result in results.items():
        metrics = result["metrics"]
        spent = sum(tflop for _, tflop in result["trained"].values())
        lines.append(row(seed, way, metrics["best_member"], *distances(metrics, "member"), spent, result["minutes"]))
        lines.append(row("", "", f"fusion: {metrics['winner']}", *distances(metrics, "strategy"), "", ""))
    return "\n".join([*lines, row("", "real images", "", *(first["floor"][name] for name in names), "", "")])


def ratios(results: dict[tuple[int, str], dict[str, Any]], ways: Sequence[str]) -> str:
    """Return each way's distances as shares of those of the race with the same seed: median, least and largest."""
    names = names_of(next(iter(results.values()))["metrics"])
    lines = [row("raced ÷", "arm", *names), "|---|---|" + "---:|" * len(names)]
    seeds = sorted({seed for seed, _ in results})
    for way in ways:
        for kind, shown in (("member", "best member"), ("strategy", "fusion")):
            found = [
                [
                    raced / other
                    for raced, other in zip(
                        distances(results[seed, RACED]["metrics"], kind),
                        distances(results[seed, way]["metrics"], kind),
                        strict=True,
                    )
                ]
                for seed in seeds
            ]
            cells = [f"{median(v):.2f} ({min(v):.2f}–{max(v):.2f})" for v in zip(*found, strict=True)]
            lines.append(row(way, shown, *cells))
    return "\n".join(lines)


def story(results: dict[tuple[int, str], dict[str, Any]]) -> str:
    """Say who got what, and who was dropped and why."""
    lines = []
    for (seed, way), result in results.items():
        shares = (
            f"{family} {kimg:.0f} kimg ({tflop:.1f} TFLOP)" for family, (kimg, tflop) in result["trained"].items()
        )
        lines.append(f"seed {seed}, {way}: {', '.join(shares)}")
        lines += [
            f"  rung {rung['rung']}: {found['family']} {'goes on' if found['goes_on'] else 'is out'}: {found['why']} "
            f"(alone {found['best']:.4f})"
            for rung in result["race"]
            for found in rung["families"]
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clone", type=Path)
    parser.add_argument("--tflop", type=float, default=24.0)
    parser.add_argument("--keep", type=float, default=0.3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--alone", nargs="*", default=[], metavar="FAMILY")
    chosen = parser.parse_args()
    clone = chosen.clone or Path(tempfile.mkdtemp(prefix="chorus-racing-")) / "chorus"
    families = yaml.safe_load(FAMILIES.read_text())
    ways = {RACED: (families, RUNGS), "split evenly": (families, [])}
    ways |= {f"{name} alone": ({name: families[name]}, []) for name in chosen.alone}
    prepare_clone(clone, chosen.data)
    base = yaml.safe_load((clone / "params.yaml").read_text())
    results = {
        (seed, way): run(clone, base, sections(seed, chosen.tflop, taking_part, rungs, chosen.keep))
        for seed in range(chosen.seeds)
        for way, (taking_part, rungs) in ways.items()
    }
    metrics = results[0, RACED]["metrics"]
    print(f"\nsplit {metrics['split']}, {metrics['samples']:,} images an arm; {os.cpu_count()} cores of", end=" ")
    print(f"{platform.machine()}; minutes of the first way include data and extractors; the clone is {clone}\n")
    print(f"{table(results)}\n\n{ratios(results, list(ways)[1:])}\n\n{story(results)}")


if __name__ == "__main__":
    main()
