"""What selection rules and shrinkage are worth by the number of real images, where the truth is known.

    python benchmarks/selection.py --clone FOLDER [--images 100 180 1000 3000] [--repetitions 20] [--spread 0.5]

FOLDER holds a project whose reference stage has run. The truth is the held-out real images' distribution in the 16
leading components of one extractor. The real images that everything is fitted on are drawn from it with replacement.
Six members with two snapshots each are the training images with classes drawn at other frequencies, sheared, displaced
and blurred in feature space. Nothing is trained: the table says how far from the truth is what would be delivered.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation import store
from pipeline.evaluation.frechet import Matrix, moments
from pipeline.evaluation.ruler import FEW_DIMS, Real, fit_ruler
from pipeline.fusion.mixture import MeanDistance
from pipeline.fusion.selection import select
from pipeline.fusion.strategies._base import Candidate, Problem, strategy
from pipeline.params import Fusion

MEMBERS, SNAPSHOTS, SAMPLES = 6, 2, 2000
STRATEGIES = ("best", "uniform", "greedy", "weighted", "weighted_kid")
RULES = (
    {"rule": "all"},
    {"rule": "threshold", "factor": 2.0},
    {"rule": "top", "count": 4},
    {"rule": "greedy"},
    {"rule": "prune", "noise": 1.0},
    {"rule": "prune", "noise": 2.0},
)


@dataclasses.dataclass(frozen=True)
class World:
    """train: N×16 relative features that members distort, of these classes (N). held_out: the truth, M×16."""

    train: Matrix
    classes: NDArray[np.int64]
    held_out: Matrix

    @classmethod
    def of(cls, reference: Path, extractor: str) -> "World":
        """Read the features of a project's reference; classes are those that the extractor itself sees."""
        train = store.read_features(reference, "train", extractor)
        rest = [store.read_features(reference, split, extractor).values for split in ("val", "gate")]
        ruler = fit_ruler(extractor, train.values, FEW_DIMS)
        if train.logits is None:
            raise SystemExit(f"{extractor} knows no classes, and members differ by how often they draw each")
        return cls(ruler.relative(train.values), train.logits.argmax(1), ruler.relative(np.concatenate(rest)))

    def pool(self, random: np.random.Generator, spread: float) -> tuple[Candidate, ...]:
        """Return candidates; spread: how far members are from the truth."""
        found, dims = [], self.train.shape[1]
        for member in range(MEMBERS):
            tilt = np.exp(1.5 * spread * random.normal(size=self.classes.max() + 1))
            shear = np.eye(dims) + 0.06 * spread * random.normal(size=(dims, dims))
            shift = 0.05 * spread * random.normal(size=dims)
            for early in range(SNAPSHOTS):
                odds = tilt[self.classes] ** (1 + 0.3 * early)
                rows = random.choice(len(self.train), SAMPLES, p=odds / odds.sum())
                noise = 0.05 * spread * random.normal(size=(SAMPLES, dims))
                samples = self.train[rows] @ shear + (1 + 0.4 * early) * shift + noise
                name = f"m{member}/r0/{SNAPSHOTS - early}"
                found.append(Candidate.of(name, None, lambda samples=samples: (samples,)))
        return tuple(found)

    def problem(self, images: int, seed: int, spread: float) -> Problem:
        """Return one draw of members and of real images."""
        random = np.random.default_rng(seed)
        pool = self.pool(random, spread)
        real = Real((self.held_out[random.choice(len(self.held_out), images)],))
        return Problem.of(pool, real, Fusion(), seed)


def measure(world: World, problem: Problem) -> dict[str, float]:
    """Return the distance from the truth of each strategy, of the plain optimum, and of `weighted` by each rule."""
    true = MeanDistance.of([c.views for c in problem.pool], (moments(world.held_out),))
    place = {candidate.id: i for i, candidate in enumerate(problem.pool)}

    def distance(weights: dict[str, float]) -> float:
        full = np.zeros(len(place))
        full[[place[name] for name in weights]] = list(weights.values())
        return true(full)[0]

    found = {}
    for name in STRATEGIES:
        evidence = strategy(name)(problem).evidence
        found[name] = distance(evidence["weights"])
        if name == "weighted":
            found["λ"] = evidence["shrinkage"]
    plain = MeanDistance.of([c.views for c in problem.pool], problem.real.views).optimum().weights
    found["weighted, λ = 0"] = distance(dict(zip(place, plain, strict=True)))
    for rule in RULES[1:]:
        chosen, _ = select(dataclasses.replace(problem, settings=Fusion(select=rule)))
        found[f"weighted, {' '.join(map(str, rule.values()))}"] = distance(
            strategy("weighted")(chosen).evidence["weights"]
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clone", type=Path, required=True)
    parser.add_argument("--extractor", default="classifier")
    parser.add_argument("--images", type=int, nargs="+", default=[100, 180, 1000, 3000])
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--spread", type=float, default=0.5)
    given = parser.parse_args()
    world, columns = World.of(given.clone / "data" / "reference", given.extractor), {}
    for images in given.images:
        problems = (world.problem(images, seed, given.spread) for seed in range(given.repetitions))
        columns[images] = [measure(world, problem) for problem in problems]
    print("| 1000 × distance from the truth | " + " | ".join(f"{images:,} real images" for images in columns) + " |")
    print("|---|" + "---:|" * len(columns))
    for name in columns[given.images[0]][0]:
        cells = []
        for rows in columns.values():
            values = np.array([row[name] for row in rows]) * (1 if name == "λ" else 1000)
            error = values.std(ddof=1) / np.sqrt(len(values))
            cells.append(f"{values.mean():.2f} ± {error:.2f}")
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
