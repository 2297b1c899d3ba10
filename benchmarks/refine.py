"""What walking latents by the members' discriminators gains, against the same walk without them.

    python benchmarks/refine.py --clone FOLDER [--images 1000] [--walks 5x0.1 10x0.1 20x0.1] [--strength 1]

FOLDER is a clone whose pipeline has run to `evaluate`. The candidate that is nearest on val draws from the same latents
each time; a walk of 10x0.1 takes ten steps of ε = 0.1. Distances are to the gate split, as shares of the real images'
variance, without their bias; behind each, its difference to the same walk without a critic, with its 95 % interval.
--strength multiplies the critic's log-odds. Seconds are those of one thread's processor.
"""

import argparse
import time
from pathlib import Path

from torch import nn

from pipeline.compute import Runtime, set_up
from pipeline.evaluation import store
from pipeline.evaluation.extractors import load_extractors
from pipeline.evaluation.intervals import Estimate, difference, estimate
from pipeline.fusion.critic import FusedCritic, Reading
from pipeline.fusion.judging import fit_readings
from pipeline.fusion.refine import RefineSampler
from pipeline.fusion.samplers import CandidateSampler, Sampler, draw
from pipeline.fusion.strategies._base import Problem
from pipeline.params import Compute
from pipeline.project import Project
from pipeline.stages._material import material_of
from pipeline.stages._pool import halves_of_val, read_pool

SPLIT = "gate"


class Judges:
    """Measures images by all extractors against the gate split."""

    def __init__(self, project: Project, runtime: Runtime, images: int) -> None:
        content = store.read_reference(project.reference)
        self.deciding, self.images = set(content["selection"]), images
        names = [*content["selection"], *content["judges"]]
        self.rulers = {name: store.read_ruler(project.reference, name) for name in names}
        self.real = {name: store.read_features(project.reference, SPLIT, name) for name in names}
        self.extractors = load_extractors(project.reference, names, runtime.device, project.weights)

    def measure(self, sampler: Sampler) -> tuple[dict[str, Estimate], float]:
        """Return a sampler's distances and the seconds that drawing took."""
        began = time.process_time()
        images = draw(sampler, self.images, seed=0)
        seconds = time.process_time() - began
        found = {n: estimate(e.features(images), self.real[n], self.rulers[n]) for n, e in self.extractors.items()}
        return found, seconds

    def row(self, label: str, sampler: Sampler, control: dict[str, Estimate] | None) -> dict[str, Estimate]:
        """Print a row of the table and return its distances."""
        found, seconds = self.measure(sampler)
        cells = []
        for name, one in found.items():
            spread = self.rulers[name].spread
            cells.append(f"{one.value / spread:.4f}")
            if control is not None:
                gap = difference(one, control[name])
                half = (gap.high - gap.low) / 2
                cells[-1] += f" ({gap.value / spread:+.4f} ± {half / spread:.4f})"
        print(f"| {label} | {sampler.cost:.0f} | {seconds:.1f} | {' | '.join(cells)} |", flush=True)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clone", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--walks", nargs="+", default=["5x0.1", "10x0.1", "20x0.1"])
    parser.add_argument("--strength", type=float, default=1)
    chosen = parser.parse_args()
    project, runtime = Project.load(chosen.clone), set_up(Compute(threads=1))
    judges = Judges(project, runtime, chosen.images)
    rulers = store.deciding_rulers(project.reference)
    fit, _ = halves_of_val(project, rulers)
    material = material_of(project, runtime, rulers, judges.extractors)
    problem = Problem.of(read_pool(project, rulers), fit, project.params.fusion, 0, material, rulers)
    readings = fit_readings(problem)
    networks: list[nn.Module] = [material.discriminator(name) for name in readings]
    source = CandidateSampler(material.generator(problem.ranked()[0].id), runtime.device)

    def critic(strength: float) -> FusedCritic:
        scaled = [Reading(strength * r.slope, strength * r.intercept) for r in readings.values()]
        return FusedCritic(networks, scaled).to(runtime.device).eval()

    names = [f"{name} {'(decides)' if name in judges.deciding else '(judge)'}" for name in judges.rulers]
    print(f"\n| {problem.ranked()[0].id}, {len(networks)} discriminators | passes | seconds | {' | '.join(names)} |")
    print("|---|---:|---:|" + "---:|" * len(names))
    judges.row("as it is", source, None)
    for walk in chosen.walks:
        steps, size = int(walk.partition("x")[0]), float(walk.partition("x")[2])
        control = judges.row(f"{walk} without critic", RefineSampler(source, critic(0), steps, size), None)
        judges.row(f"{walk}", RefineSampler(source, critic(chosen.strength), steps, size), control)


if __name__ == "__main__":
    main()
