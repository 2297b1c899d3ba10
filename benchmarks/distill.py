"""A mixture of generators, a student of it with its control, and the student in every format, on Fashion-MNIST.

    python benchmarks/distill.py --clone FOLDER [--data FOLDER] [--members 4] [--kimg 150] [--student-kimg 300]

FOLDER of --clone becomes a clone of the project whose `reference` stage has run on Fashion-MNIST, unless it is one.
Where its pipeline has run to the fusion, the teacher is the fused sampler; else small members are trained here and
mixed evenly. Student and control have the same initial weights and number of steps; the one learns the teacher's
images, the other the real ones. All distances are to the gate split. Images per second are those of one thread, of the
same run, in batches of 256.
"""

import argparse
import multiprocessing
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from members import refer
from torch import nn

from pipeline.compute import Runtime, set_up
from pipeline.data.dataset import read_manifest
from pipeline.evaluation import frechet, store
from pipeline.evaluation.extractors import load_extractors
from pipeline.export.onnx import OnnxGenerator, quantise, to_onnx
from pipeline.files import read_json
from pipeline.fusion.needs import networks_of
from pipeline.fusion.samplers import CandidateSampler, MixtureSampler, Sampler, draw
from pipeline.params import Compute, Family
from pipeline.project import Project
from pipeline.recipes import load_sampler
from pipeline.stages.train import load_data, model_config
from pipeline.training import loop
from pipeline.training.loop import Data
from pipeline.training.streams import Streams
from pipeline.weights import load_generator, save_half, save_snapshot

EXTRACTORS = ("classifier", "classifier-b", "selfsup")
MEMBER = {"architecture": "dcgan", "width": 32, "lr": 0.0005}
STUDENT = {"architecture": "dcgan", "width": 16, "lr": 0.0005}


def train(clone: Path, name: str, recipe: dict[str, Any], images: torch.Tensor | None, folder: Path) -> None:
    """Train one generator on `images` (None: the train split) and write it to `folder`."""
    runtime = set_up(Compute(threads=1))
    project = Project.load(clone)
    family = Family(**recipe)
    config = model_config(family, read_manifest(project.prepared))
    data = load_data(project, family, runtime) if images is None else Data(images.to(runtime.device))
    streams = Streams(0, name, 0)
    state = loop.build(family, config, runtime, streams)
    for _ in loop.train(data, family, config, runtime, streams, state):
        pass
    save_snapshot(folder, config, {"generator": state.average.cpu()})


def train_all(jobs: list[tuple[Any, ...]]) -> None:
    """Train as many at once as there are cores, each in a process with one thread."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(len(jobs), multiprocessing.cpu_count()), maxtasksperchild=1) as pool:
        pool.starmap(train, jobs, chunksize=1)


def teacher(clone: Path, members: int, kimg: float, folder: Path) -> tuple[str, Sampler, int]:
    """Return what is distilled: its name, the sampler and the bytes of its networks."""
    fused = clone / "models" / "fused"
    if (fused / "recipe.json").exists():
        content = read_json(fused / "recipe.json")
        names = networks_of(content["recipe"])
        files = [fused / "members" / n / f"{network}.safetensors" for n, nets in names.items() for network in nets]
        sampler = load_sampler(content["recipe"], (fused / "members").joinpath)
        return f"fusion: {content['strategy']}", sampler, sum(file.stat().st_size for file in files)
    folders = [folder / f"member{i}" for i in range(members)]
    train_all([(clone, f"member{i}", {**MEMBER, "kimg": kimg}, None, path) for i, path in enumerate(folders)])
    parts = [CandidateSampler(load_generator(path)[0]) for path in folders]
    size = sum((path / "generator.safetensors").stat().st_size for path in folders)
    return f"mixture of {members}", MixtureSampler(parts, [1 / members] * members), size


class Autocast(nn.Module):
    """A generator that computes in bf16 where autocast does."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.network, self.runtime = network, Runtime(device, torch.bfloat16)
        self.latent, self.class_shares = network.latent, network.class_shares

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        with self.runtime.autocasting():
            return self.network(z).float()


def formats(folder: Path, partial: Path) -> list[tuple[str, nn.Module, int]]:
    """Return the generator of a snapshot in each format, with its bytes."""
    network, config = load_generator(folder)
    save_half(partial / "half", config, network)
    whole = to_onnx(network)
    small = quantise(whole, network)
    size, half = ((path / "generator.safetensors").stat().st_size for path in (folder, partial / "half"))
    return [
        ("student, torch fp32", network, size),
        ("student, torch bf16 autocast", Autocast(network, torch.device("cpu")), size),
        ("student, fp16 weights", load_generator(partial / "half")[0], half),
        ("student, ONNX fp32", OnnxGenerator(whole, network), len(whole)),
        ("student, ONNX int8", OnnxGenerator(small, network), len(small)),
    ]


def row(project: Project, extractors: dict[str, Any], name: str, sampler: Sampler, size: int, samples: int) -> str:
    """Draw from a sampler, measure it, and return its row of the table."""
    draw(sampler, 256, seed=1)
    began = time.perf_counter()
    images = draw(sampler, samples, seed=0)
    rate = samples / (time.perf_counter() - began)
    cells = []
    for extractor, network in extractors.items():
        ruler = store.read_ruler(project.reference, extractor)
        real = store.read_features(project.reference, "gate", extractor)
        sides = [frechet.moments(ruler.project(features.values)) for features in (network.features(images), real)]
        cells.append(f"{frechet.distance(*sides):.2f}")
    return f"| {name} | {' | '.join(cells)} | {size / 1000:,.0f} | {sampler.cost:g} | {rate:,.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clone", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="Fashion-MNIST in torchvision's layout, for a new clone")
    parser.add_argument("--members", type=int, default=4, help="trained for the mixture, where nothing is fused yet")
    parser.add_argument("--kimg", type=float, default=150, help="of each of them")
    parser.add_argument("--student-kimg", type=float, default=300, help="of the student and of its control")
    parser.add_argument("--images", type=int, default=20_000, help="of the teacher, that the student learns")
    parser.add_argument("--samples", type=int, default=5000, help="that each row is measured by")
    chosen = parser.parse_args()
    if chosen.data is None and not chosen.clone.exists():
        parser.error("a new clone needs --data")
    refer(chosen.clone, chosen.data)
    began = time.monotonic()
    set_up(Compute(device="cpu", threads=1))
    project = Project.load(chosen.clone)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        name, sampler, size = teacher(chosen.clone, chosen.members, chosen.kimg, folder)
        images = draw(sampler, chosen.images, seed=2)
        recipe = {**STUDENT, "kimg": chosen.student_kimg}
        pairs = [("student", images), ("control", None)]
        train_all([(chosen.clone, "student", recipe, data, folder / role) for role, data in pairs])
        control = load_generator(folder / "control")[0]
        arms = [(name, sampler, size)]
        arms += [
            (form, CandidateSampler(network), bytes_) for form, network, bytes_ in formats(folder / "student", folder)
        ]
        arms.insert(1, ("control, torch fp32", CandidateSampler(control), arms[1][2]))
        extractors = load_extractors(project.reference, EXTRACTORS, "cpu", {})
        rulers = [store.read_ruler(project.reference, extractor).name for extractor in EXTRACTORS]
        print(f"\n| sampler | {' | '.join(rulers)} | kB | passes | img/s drawn |\n|---|" + "---:|" * (len(rulers) + 3))
        for arm, source, bytes_ in arms:
            print(row(project, extractors, arm, source, bytes_, chosen.samples), flush=True)
    told = f"{platform.processor() or platform.machine()}, one thread; torch {torch.__version__}"
    print(f"\n{chosen.samples:,} images a row, {told}; {(time.monotonic() - began) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
