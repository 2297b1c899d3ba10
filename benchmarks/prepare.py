"""Memory and speed of `ingest` and `prepare` on flat folders of synthetic PNG images, and what a million would take.

    python benchmarks/prepare.py --images 10000 50000 --size 64

Each stage runs in a process of its own, whose peak resident memory the kernel reports. The slope between the smallest
and the largest folder is what an image costs.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

MILLION = 1_000_000
STAGES = ("ingest", "prepare")
PARAMS = """\
data: {{source: folder, root: images, watch: images, size: {size}, channels: 3}}
families: {{any: {{architecture: mlp, kimg: 1}}}}
"""
# In a process of its own, for the kernel counts the memory of a process that starts another towards the other's peak.
MAKE_IMAGES = """\
import sys
import numpy as np
from PIL import Image
from pathlib import Path
folder, count, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
random = np.random.default_rng(0)
for number in range(count):
    coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    image = coarse.resize((size, size), Image.Resampling.BICUBIC)
    image.save(folder / f"{number:07d}.png", compress_level=1)
"""


@dataclass(frozen=True)
class Measurement:
    """One stage on one folder; peak in bytes."""

    stage: str
    images: int
    seconds: float
    peak: int
    files: int


def run_stage(stage: str, project: Path, images: int) -> Measurement:
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "pipeline", stage], cwd=project, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{stage} on {images} images ended with status {process.returncode}")
    made = project / "data" / {"ingest": "raw", "prepare": "prepared"}[stage]
    seconds, files = time.perf_counter() - start, sum(1 for _ in made.iterdir())
    return Measurement(stage, images, seconds, usage.ru_maxrss * 1024, files)


def measure(images: int, size: int, scratch: Path) -> list[Measurement]:
    """Make a folder of images, run both stages on it and remove it."""
    project = scratch / str(images)
    (project / "images").mkdir(parents=True)
    (project / "params.yaml").write_text(PARAMS.format(size=size))
    subprocess.run([sys.executable, "-c", MAKE_IMAGES, project / "images", str(images), str(size)], check=True)
    measured = [run_stage(stage, project, images) for stage in STAGES]
    shutil.rmtree(project)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 50_000], help="sizes of the folders")
    parser.add_argument("--size", type=int, default=64, choices=(8, 16, 28, 32, 64, 128), help="side of the images")
    parser.add_argument("--scratch", type=Path, help="folder for the images (default: the system's temporary folder)")
    arguments = parser.parse_args()
    if len(set(arguments.images)) < 2:
        parser.error("--images needs two sizes")
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        rows = [
            row for images in sorted(set(arguments.images)) for row in measure(images, arguments.size, Path(scratch))
        ]

    print(f"{platform.machine()}, {os.cpu_count()} cores, {arguments.size}×{arguments.size} RGB PNG")
    print("| stage | images | peak MiB | images/s | files for DVC |\n|---|---:|---:|---:|---:|")
    for row in rows:
        rate = row.images / row.seconds
        print(f"| {row.stage} | {row.images:,} | {row.peak / 2**20:.1f} | {rate:,.0f} | {row.files} |")
    for stage in STAGES:
        small, *_, large = (row for row in rows if row.stage == stage)
        slope = (large.peak - small.peak) / (large.images - small.images)
        million = (large.peak + slope * (MILLION - large.images)) / 2**20
        print(f"{stage}: {slope:.0f} bytes an image; a million images would peak at {million:.0f} MiB")


if __name__ == "__main__":
    main()
