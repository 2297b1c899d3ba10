"""Averages of weights along a training: distance against length, beside the plain average that training samples.

    python benchmarks/averages.py --project FOLDER --family NAME [--samples 4000]

FOLDER is a checkout whose stages `reference` and `train@NAME` have run, the family with `ema_profiles: true`. Each
average ends at one of a member's snapshots; all draw from the same latents. Distances are to `gate`, by every
extractor, as a share of the real images' variance. Nothing is chosen here: the best length is seen in hindsight.
"""

import argparse
import os
import platform
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.compute import Runtime, set_up
from pipeline.evaluation import frechet, store
from pipeline.evaluation.extractors import load_extractors
from pipeline.files import read_json
from pipeline.fusion.posthoc import Profile, combination, combine
from pipeline.fusion.samplers import CandidateSampler, draw
from pipeline.project import Project
from pipeline.training.loop import settle_one
from pipeline.training.streams import Streams
from pipeline.weights import load_generator, load_profiles

WIDTHS = (0.02, 0.03, 0.05, 0.07, 0.10, 0.15, 0.20, 0.25)


class Ruler:
    """Distances of a generator's samples to `gate`, by the extractors that decide and by the judges."""

    def __init__(self, project: Project, samples: int, runtime: Runtime) -> None:
        self.samples, self.runtime = samples, runtime
        reference = store.read_reference(project.reference)
        self.names = [*reference["selection"], *reference["judges"]]
        self.extractors = load_extractors(project.reference, self.names, runtime.device, project.weights)
        self.rulers = {name: store.read_ruler(project.reference, name) for name in self.names}
        features = {name: store.read_features(project.reference, "gate", name).values for name in self.names}
        self.real = {name: frechet.moments(self.rulers[name].relative(values)) for name, values in features.items()}

    def distances(self, network: nn.Module) -> list[float]:
        images = draw(CandidateSampler(network, self.runtime.device), self.samples, seed=0)
        seen = {name: self.rulers[name].relative(self.extractors[name].features(images).values) for name in self.names}
        return [frechet.distance(frechet.moments(seen[name]), self.real[name]) for name in self.names]


def averaged(folder: Path, weights: dict[str, Tensor], runtime: Runtime) -> nn.Module:
    """Return a snapshot's generator with other weights, its batch-norm statistics measured anew."""
    network, _ = load_generator(folder, runtime.device)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(weights[name])
    settle_one(network, network, 256, runtime, Streams(0, "averages", 0))
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--family", required=True)
    parser.add_argument("--samples", type=int, default=4000)
    asked = parser.parse_args()
    project = Project.load(asked.project)
    runtime = set_up(project.params.compute)
    ruler = Ruler(project, asked.samples, runtime)
    folder = project.family_folder(asked.family)
    cores = len(os.sched_getaffinity(0))
    print(f"{platform.machine()}, {cores} cores, torch {torch.__version__}; {asked.samples} samples against gate\n")
    print(f"| member | kimg | average | missing | {' | '.join(ruler.names)} | mean |")
    print(f"|---|---|---|---|{'---|' * (len(ruler.names) + 1)}")
    for member in read_json(folder / "family.json")["members"]:
        snapshots = sorted(path.parent for path in (folder / member).glob("*/config.json"))
        kept = [(int(s.name), width, own) for s in snapshots for width, own in load_profiles(s).items()]
        for snapshot in snapshots:
            end = int(snapshot.name)
            stored = [(Profile(width, nimg), own) for nimg, width, own in kept if nimg <= end]
            row(member, end, "plain", None, ruler.distances(load_generator(snapshot, runtime.device)[0]))
            for width in WIDTHS:
                found = combination([profile for profile, _ in stored], Profile(width, end))
                network = averaged(snapshot, combine(found.coefficients, [own for _, own in stored]), runtime)
                row(member, end, f"{width:g}", found.error, ruler.distances(network))


def row(member: str, nimg: int, average: str, missing: float | None, distances: list[float]) -> None:
    """Print one line of the table."""
    shown = " | ".join(f"{value:.4f}" for value in [*distances, sum(distances) / len(distances)])
    print(
        f"| {member} | {nimg / 1000:.0f} | {average} | {'' if missing is None else f'{missing:.2f}'} | {shown} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
