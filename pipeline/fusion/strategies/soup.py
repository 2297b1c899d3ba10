"""Averages of weights along one training, or among siblings of one ancestor: one network, at one pass an image.

Post-hoc averages (Karras et al. 2024, `pipeline.fusion.posthoc`) of several lengths are made of what the trainings of
the nearest members stored, for the best length depends on the training and is not known before. "Model soups"
(Wortsman et al. 2022) of siblings are the plain mean of weights that went on from the same state. Weights of members
that were initialised apart are never averaged: that destroys the images.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.compute import Runtime
from pipeline.errors import ChorusError
from pipeline.evaluation.frechet import mean_distance
from pipeline.evaluation.ruler import Real
from pipeline.fusion.posthoc import Profile, combination, combine
from pipeline.fusion.samplers import CandidateSampler, draw
from pipeline.fusion.strategies._base import (
    Candidate,
    Fusion,
    Material,
    NotApplicableError,
    Problem,
    Snapshot,
    register,
)
from pipeline.randomness import derive_seed
from pipeline.training.loop import settle_one
from pipeline.training.streams import Streams

WIDTHS = (0.03, 0.05, 0.07, 0.10, 0.15, 0.20)  # relative ones, of the averages that are tried
MISSING = 0.25  # of a wanted profile, at which what is stored no longer makes it
BATCH = 256  # of the latents on which batch-norm statistics are measured
SIBLING = re.compile(r"(r\d+)b\d+")


@dataclass(frozen=True)
class Average:
    """An average of weights. id: as a candidate's. source: whose place it takes. about: what it is made of."""

    id: str
    source: Candidate
    weights: dict[str, Tensor]
    about: dict[str, Any]


@register("soup")
def soup(problem: Problem) -> Fusion:
    """Return the average of weights that is nearest to the part of `val` to fit on, by samples of its own.

    One whose images are no numbers is left out.
    """
    material = problem.material
    if material is None:
        raise NotApplicableError("there are no networks to average")
    tried: dict[str, dict[str, Any]] = {}
    faults: list[str] = []
    best: tuple[float, Average, nn.Module] | None = None
    for average in chain(along_trainings(problem, material), among_siblings(problem, material)):
        network = network_of(average, problem, material)
        try:
            distance = measured(network, problem, material)
        except ChorusError as fault:
            faults.append(f"{average.id}: {fault}")
            continue
        about = {**average.about, "source": average.source.id, "plain": problem.distances[average.source.id]}
        tried[average.id] = {"fit": distance, **about}
        if best is None or distance < best[0]:
            best = distance, average, network
    if best is None and faults:
        raise NotApplicableError(f"no average draws images: {faults[0]}")
    if best is None:
        raise NotApplicableError(
            "no snapshot has stored averages (families.NAME.ema_profiles), and no member of a race has siblings"
        )
    distance, average, network = best
    evidence = {"weights": {average.id: 1.0}, "fit": distance, "averages": tried}
    made = {average.id: Snapshot(average.source.id, network)}
    return Fusion({"kind": "candidate", "id": average.id}, evidence, snapshots=made)


def along_trainings(problem: Problem, material: Material) -> Iterator[Average]:
    """Yield averages along the trainings of the nearest members that stored any, up to their nearest and last snapshot.

    Those whose profile cannot be made of what was stored are left out.
    """
    members = sorted(problem.best_of_each_member(), key=lambda c: (problem.distances[c.id], c.id))
    left = problem.settings.soup_members
    for nearest in members:
        run = sorted((c for c in problem.pool if c.member == nearest.member), key=lambda c: c.nimg)
        stored = [(Profile(width, c.nimg), own) for c in run for width, own in material.profiles(c.id).items()]
        if not stored:
            continue
        for end in {c.id: c for c in (nearest, run[-1])}.values():
            yield from averages_at(end, [pair for pair in stored if pair[0].nimg <= end.nimg])
        left -= 1
        if not left:
            return


def averages_at(end: Candidate, stored: Sequence[tuple[Profile, dict[str, Tensor]]]) -> Iterator[Average]:
    """Yield averages of the weights of a training up to the snapshot `end`, of what was stored until then."""
    for width in WIDTHS if stored else ():
        found = combination([profile for profile, _ in stored], Profile(width, end.nimg))
        if found.error <= MISSING:
            about = {"sigma_rel": width, "nimg": end.nimg, "missing": found.error}
            name = f"{name_of(end)}/{end.nimg:09d}-{round(1000 * width):03d}"
            yield Average(name, end, combine(found.coefficients, [own for _, own in stored]), about)


def among_siblings(problem: Problem, material: Material) -> Iterator[Average]:
    """Yield the mean of the siblings of each ancestor, and that of them and of its plain continuation."""
    last: dict[str, Candidate] = {}
    for candidate in sorted(problem.pool, key=lambda c: c.nimg):
        last[candidate.member] = candidate
    families: dict[str, list[Candidate]] = defaultdict(list)
    for member, candidate in sorted(last.items()):
        family, _, name = member.partition("/")
        if sibling := SIBLING.fullmatch(name):
            families[f"{family}/{sibling[1]}"].append(candidate)
    for ancestor, siblings in families.items():
        for parts in (siblings, [*siblings, *filter(None, [last.get(ancestor)])]):
            if len(parts) > 1:
                yield mean_of(parts, material)


def mean_of(parts: Sequence[Candidate], material: Material) -> Average:
    """Return the plain mean of the weights of candidates that went on from one state."""
    weights = [dict(material.generator(c.id).named_parameters()) for c in parts]
    mean = combine(np.full(len(parts), 1 / len(parts)), weights)
    name = f"{name_of(parts[0])}/{parts[0].nimg:09d}-mean{len(parts)}"
    return Average(name, parts[0], mean, {"parts": [c.id for c in parts], "nimg": parts[0].nimg})


def network_of(average: Average, problem: Problem, material: Material) -> nn.Module:
    """Return a generator with averaged weights and batch-norm statistics of its own, on latents that all share."""
    network = material.generator(average.source.id)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(average.weights[name])
    runtime = Runtime(material.device, material.autocast)
    settle_one(network, network, BATCH, runtime, Streams(problem.seed, "soup", 0))
    return network


def measured(network: nn.Module, problem: Problem, material: Material) -> float:
    """Return the distance of a generator's samples, as many as of a candidate, on latents that all averages share."""
    count = len(problem.pool[0].read()[0])
    images = draw(CandidateSampler(network, material.device), count, seed=derive_seed(problem.seed, "soup", "samples"))
    return mean_distance(Real(material.features(images)).views, problem.real.views)


def name_of(candidate: Candidate) -> str:
    """Return the first two parts of an average's id. No member is called so: it has a hyphen."""
    return f"soup/{candidate.member.replace('/', '-')}"
