"""The whole pipeline on Fashion-MNIST, in a clone of its own: a table of held-out distances and a picture.

    python benchmarks/fashion_mnist.py --data FOLDER [--clone FOLDER] [--picture FILE]

FOLDER holds Fashion-MNIST in torchvision's layout (or gets it, where the network allows). The parameters are those of
benchmarks/fashion_mnist.yaml. Run it again with the same --clone to go on after an interruption.
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

import yaml
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[1]
CAPTION = 16  # pixels above each sheet
GAP = 12


def prepare_clone(clone: Path, data: Path) -> None:
    """Clone the project's last commit into `clone`, unless it is there, and give it this benchmark's parameters."""
    if not (clone / ".git").exists():
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params |= yaml.safe_load((ROOT / "benchmarks" / "fashion_mnist.yaml").read_text())
    params["data"]["root"] = str(data.resolve())
    (clone / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def picture(figures: Path, metrics: dict, path: Path) -> None:
    """Put real images, the best member's and the fusion's side by side."""
    member, winner = metrics["best_member"], metrics["winner"]
    sheets = {
        "real": figures / "real.png",
        f"best member: {member}": figures / "member" / f"{member.replace('/', '-')}.png",
        f"fusion: {winner}": figures / "strategy" / f"{winner}.png",
    }
    images = [Image.open(sheet) for sheet in sheets.values()]
    width, height = images[0].size
    canvas = Image.new("RGB", (len(images) * (width + GAP) - GAP, height + CAPTION), "white")
    for place, (caption, image) in enumerate(zip(sheets, images, strict=True)):
        ImageDraw.Draw(canvas).text((place * (width + GAP), 2), caption, fill="black")
        canvas.paste(image, (place * (width + GAP), CAPTION))
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path)


def table(metrics: dict) -> str:
    """Return the distances by each judge and by the ruler as a Markdown table."""
    names = [*metrics["headline"], metrics["decided_by"]]
    rows = [["", *names, "passes"]]
    rows += [[a["name"], *(f"{a['metrics'][n]:.3g}" for n in names), f"{a['cost']:g}"] for a in metrics["arms"]]
    rows.append(["real images", *(f"{metrics['floor'][n]:.3g}" for n in names), ""])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---|" + "---:|" * (len(names) + 1), *lines[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clone", type=Path)
    parser.add_argument("--picture", type=Path)
    chosen = parser.parse_args()
    clone = chosen.clone or Path(tempfile.mkdtemp(prefix="chorus-fashion-")) / "chorus"
    prepare_clone(clone, chosen.data)
    environment = {**os.environ, "PYTHONPATH": str(clone)}
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "flows.retrain"], cwd=clone, env=environment, check=True)
    minutes = (time.monotonic() - began) / 60
    metrics = json.loads((clone / "report" / "metrics.json").read_text())
    if chosen.picture:
        picture(clone / "report" / "figures", metrics, chosen.picture)
    print(f"\nwinner on val: {metrics['winner']}; split {metrics['split']}, {metrics['samples']:,} images an arm")
    print(f"{os.cpu_count()} cores of {platform.machine()}, {minutes:.1f} minutes; the clone is {clone}\n")
    print(table(metrics))


if __name__ == "__main__":
    main()
