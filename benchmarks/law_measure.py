"""What is measured of members on Stacked-MNIST, of pairs of them, and of ensembles of each size and budget."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import law
import numpy as np
import torch
from numpy.typing import NDArray
from stacked_mnist import MODES, divergence, mode_of, read

from pipeline.data.dataset import load_split
from pipeline.evaluation.frechet import Matrix, Moments, distance, moments
from pipeline.fusion.kernel import MeanKernel
from pipeline.fusion.kernel_distance import KernelDistance
from pipeline.fusion.mixture import mixed
from pipeline.fusion.samplers import CandidateSampler, draw
from pipeline.randomness import derive_seed
from pipeline.weights import load_generator

IMAGES = 26_000  # that modes are counted on, whatever the number of members
MOST = 20  # sets of members that are measured of each size and budget
Line = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """Images as the reader sees them: modes N int64, features N×96, in which real images have a total variance of 1."""

    modes: NDArray[np.int64]
    features: Matrix

    def counts(self, images: int = IMAGES) -> NDArray[np.int64]:
        """Return how often each mode occurs among the first images."""
        return np.bincount(self.modes[:images], minlength=MODES)

    @cached_property
    def prefixes(self) -> dict[int, tuple[Moments, ...]]:
        """The moments of the first N/K images, by K; found when they are asked for."""
        return {}

    def moments_of(self, size: int) -> tuple[Moments, ...]:
        """Return the moments of what a member contributes to an ensemble of this size."""
        if size not in self.prefixes:
            self.prefixes[size] = (moments(self.features[: IMAGES // size]),)
        return self.prefixes[size]


class Eye:
    """The reader with the real images that it compares with: weights are fitted on `val`, all is measured on `gate`."""

    def __init__(self, reader: torch.nn.Module, prepared: Path, device: torch.device) -> None:
        self.reader, self.device, self.spread = reader, device, 1.0
        real = {split: np.asarray(load_split(prepared, split).images)[:IMAGES] for split in ("train", "val", "gate")}
        self.spread = float(self.see(real["val"]).features.var(axis=0).sum())
        self.train, self.val, self.gate = (self.see(real[split]) for split in ("train", "val", "gate"))

    def see(self, images: NDArray[np.uint8]) -> Seen:
        """Read images N×3×28×28."""
        classes, features = read(self.reader, images, self.device)
        return Seen(mode_of(classes), features / np.float64(self.spread**0.5))

    def sampled(self, folder: Path, seed: int) -> Seen:
        """Draw and read the images of a snapshot."""
        sampler = CandidateSampler(load_generator(folder, self.device)[0], self.device)
        own = derive_seed(seed, "ensemble-law", *folder.parts[-3:])
        return self.see(draw(sampler, IMAGES, seed=own).numpy())


def measure(snapshots: dict[int, list[Path]], sizes: Callable[[int], list[int]], seed: int, eye: Eye) -> Iterator[Line]:
    """Yield the lines of a repetition.

    snapshots: FAMILY/MEMBER/SNAPSHOT of all members that reached a budget, by the budget in units of the smallest.
    sizes: how many members an ensemble may have there.
    """
    yield {"kind": "real", "seed": seed, **floor(eye)}
    for level, folders in snapshots.items():
        names, members = ["/".join(folder.parts[-3:-1]) for folder in folders], [eye.sampled(f, seed) for f in folders]
        kernel = MeanKernel.of([(seen.features,) for seen in (*members, eye.val, eye.gate)])
        on_val, on_gate = (KernelDistance.of(kernel, len(members), [len(members) + at]) for at in (0, 1))
        common = {"seed": seed, "level": level, "nimg": int(folders[0].name)}
        for name, member, alone in zip(names, members, on_gate.of_each().tolist(), strict=True):
            own = {"member": name, "mmd": alone, "chi": law.imbalance(member.counts())}
            yield {"kind": "member", **common, **own, "found": found(sizes(level), [member])}
        apart = on_gate.between()
        for i, j in combinations(range(len(members)), 2):
            shared = law.imbalance(members[i].counts(), members[j].counts())
            own = {"members": [names[i], names[j]], "mmd": float(apart[i, j]), "chi": shared}
            yield {"kind": "pair", **common, **own, "found": found(sizes(level), [members[i], members[j]])}
        for size in sizes(level):
            for rows in law.groups(len(members), size, MOST, derive_seed(seed, "groups", level, size)):
                chosen, equal = list(rows), np.full(size, 1 / size)
                counted = count([members[row] for row in rows], eye)
                counted["mmd"] = some(on_gate, chosen).unbiased(equal)
                counted["mmd_weighted"] = some(on_gate, chosen).unbiased(some(on_val, chosen).optimum().weights)
                yield {"kind": "ensemble", **common, "size": size, "members": [names[row] for row in rows], **counted}


def floor(eye: Eye) -> Line:
    """Return what real images of `train` measure in an ensemble's place."""
    kernel = MeanKernel.of([(eye.train.features,), (eye.gate.features,)])
    return {**count([eye.train], eye), "mmd": KernelDistance.of(kernel, 1, [1]).unbiased(np.ones(1))}


def found(sizes: Sequence[int], members: Sequence[Seen]) -> dict[str, float]:
    """Return the share of modes that all of these find, each in its part of an ensemble's images, by its size."""
    hits = {size: [member.counts(IMAGES // size) > 0 for member in members] for size in sizes}
    return {str(size): float(np.logical_and.reduce(hit).mean()) for size, hit in hits.items()}


def count(members: Sequence[Seen], eye: Eye) -> Line:
    """Return modes, KL and Fréchet distance of equally many images of each member, 26,000 in all."""
    modes = np.concatenate([member.modes[: IMAGES // len(members)] for member in members])
    parts = [member.moments_of(len(members)) for member in members]
    (seen,) = mixed(parts, np.full(len(members), 1 / len(members)))
    fd = distance(seen, eye.gate.moments_of(1)[0])
    return {"modes": len(np.unique(modes)), "kl": divergence(modes), "fd": fd}


def some(whole: KernelDistance, rows: list[int]) -> KernelDistance:
    """Return the distance of mixtures of some of the parts."""
    own = {"own": whole.own[rows], "rows": whole.rows[rows], "cross": whole.cross[rows]}
    return replace(whole, parts=whole.parts[np.ix_(rows, rows)], **own)
