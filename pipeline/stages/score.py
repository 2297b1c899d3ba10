"""Score a folder of images by the fused critic: a command, no stage of DVC."""

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from pipeline.compute import set_up
from pipeline.data.dataset import read_manifest
from pipeline.data.decode import BadImageError, decode, to_array
from pipeline.data.folder import EXTENSIONS
from pipeline.data.quarantine import printable
from pipeline.errors import ChorusError
from pipeline.files import write_text
from pipeline.project import Project
from pipeline.recipes import load_critic
from pipeline.stages._out import make_way

AT_ONCE = 1024  # images in memory


def run(project: Project, images: Path, out: Path | None) -> None:
    """Write a line `score,file` for each image below a folder, to `out` or the standard output.

    1 is real to the members' discriminators, 0 is generated. Images are decoded, cropped and resized as the `prepare`
    stage does; those that cannot be are named on the standard error and left out. Raises `ChorusError` where there is
    no critic or no image, and where `out` cannot be written.
    """
    folder = project.chosen / "critic"
    if not folder.is_dir():
        raise ChorusError(f"there is no {folder}: no member has a discriminator, or `dvc repro choose` has not run yet")
    if out is not None:
        make_way(out)
        if out.is_dir():
            raise ChorusError(f"{out} is a folder: name a file with --out")
    runtime = set_up(project.params.compute)
    critic, rule = load_critic(folder, runtime.device)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["score", "file"])
    names: list[str] = []
    pixels: list[np.ndarray] = []

    def score() -> None:
        shown = torch.from_numpy(np.stack(pixels))
        table.writerows((f"{value:.4f}", name) for value, name in zip(critic.scores(shown, rule), names, strict=True))
        names.clear()
        pixels.clear()

    for name, array in decoded(project, images):
        names.append(name)
        pixels.append(array)
        if len(names) == AT_ONCE:
            score()
    if names:
        score()
    if text.getvalue().count("\n") == 1:
        raise ChorusError(f"{images} holds no image that can be scored (of {', '.join(e[1:] for e in EXTENSIONS)})")
    if out is None:
        print(text.getvalue(), end="", flush=True)
    else:
        write_text(out, text.getvalue())


def decoded(project: Project, folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and pixels, uint8 C×H×W, of each image below a folder, in the order of their names."""
    manifest = read_manifest(project.prepared)
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file()):
        try:
            image = decode(path.read_bytes(), project.params.data.max_pixels)
        except (BadImageError, OSError) as error:
            print(f"score  {printable(str(path))}: {error}", file=sys.stderr, flush=True)
            continue
        yield printable(path.relative_to(folder).as_posix()), to_array(image, manifest["size"], manifest["channels"])
