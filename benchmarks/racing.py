"""One budget on Fashion-MNIST three ways: raced, split evenly, and (where asked for) all of it for one family.

    python benchmarks/racing.py --data FOLDER [--clone FOLDER] [--tflop 24] [--keep 0.3] [--alone FAMILY ...]

FOLDER of --data holds Fashion-MNIST in torchvision's layout (or gets it, where the network allows). The families are
those of benchmarks/racing.yaml, the rest of the parameters those of benchmarks/fashion_mnist.yaml with fewer samples.
Each way is a run of the whole pipeline in the same clone, so data and extractors are made once; the race has three
rungs. Run it again with the same --clone to go on after an interruption.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from fashion_mnist import prepare_clone

ROOT = Path(__file__).parents[1]
FAMILIES = ROOT / "benchmarks" / "racing.yaml"
RUNGS = [{"rung": 2, "after": 1}, {"rung": 3, "after": 2}]
SAMPLES = 3000


def sections(tflop: float, families: dict[str, Any], rungs: list[dict[str, int]], keep: float) -> dict[str, Any]:
    """Return what one way of spending the budget changes in params.yaml."""
    return {
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


def distances(metrics: dict[str, Any], name: str, kind: str) -> list[str]:
    """Return an arm's distances by the judges and by the ruler."""
    (arm,) = (arm for arm in metrics["arms"] if (arm["name"], arm["kind"]) == (name, kind))
    return [f"{arm['metrics'][metric]:.2f}" for metric in (*metrics["headline"], metrics["decided_by"])]


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return a row for the best member and one for the fusion of each way, as Markdown."""
    first = next(iter(results.values()))["metrics"]
    names = [*first["headline"], first["decided_by"]]
    lines = [f"| budget | arm | {' | '.join(names)} | TFLOP | minutes |", "|---|---|" + "---:|" * (len(names) + 2)]
    for way, result in results.items():
        metrics = result["metrics"]
        spent = f"{sum(tflop for _, tflop in result['trained'].values()):.1f} | {result['minutes']:.1f}"
        member, winner = metrics["best_member"], metrics["winner"]
        lines.append(f"| {way} | {member} | {' | '.join(distances(metrics, member, 'member'))} | {spent} |")
        lines.append(f"| | fusion: {winner} | {' | '.join(distances(metrics, winner, 'strategy'))} | | |")
    floor = [f"{first['floor'][name]:.2f}" for name in names]
    return "\n".join([*lines, f"| real images | | {' | '.join(floor)} | | |"])


def story(results: dict[str, dict[str, Any]]) -> str:
    """Say who got what, and who was dropped and why."""
    lines = []
    for way, result in results.items():
        shares = (
            f"{family} {kimg:.0f} kimg ({tflop:.1f} TFLOP)" for family, (kimg, tflop) in result["trained"].items()
        )
        lines.append(f"{way}: {', '.join(shares)}")
        for rung in result["race"]:
            for row in rung["families"]:
                verdict = "goes on" if row["goes_on"] else "is out"
                lines.append(
                    f"  rung {rung['rung']}: {row['family']} {verdict}: {row['why']} (alone {row['best']:.2f})"
                )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clone", type=Path)
    parser.add_argument("--tflop", type=float, default=24.0)
    parser.add_argument("--keep", type=float, default=0.3)
    parser.add_argument("--alone", nargs="*", default=[], metavar="FAMILY")
    chosen = parser.parse_args()
    clone = chosen.clone or Path(tempfile.mkdtemp(prefix="chorus-racing-")) / "chorus"
    families = yaml.safe_load(FAMILIES.read_text())
    ways = {
        "raced": sections(chosen.tflop, families, RUNGS, chosen.keep),
        "split evenly": sections(chosen.tflop, families, [], chosen.keep),
    }
    for name in chosen.alone:
        ways[f"{name} alone"] = sections(chosen.tflop, {name: families[name]}, [], chosen.keep)
    prepare_clone(clone, chosen.data)
    base = yaml.safe_load((clone / "params.yaml").read_text())
    results = {way: run(clone, base, changed) for way, changed in ways.items()}
    metrics = results["raced"]["metrics"]
    print(f"\nsplit {metrics['split']}, {metrics['samples']:,} images an arm; {os.cpu_count()} cores of", end=" ")
    print(f"{platform.machine()}; minutes of the first way include data and extractors; the clone is {clone}\n")
    print(f"{table(results)}\n\n{story(results)}")


if __name__ == "__main__":
    main()
