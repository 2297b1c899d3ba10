"""A mixture with weights of its own for each class, or cluster of features, shrunk towards those of all images."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.frechet import Matrix, Vector
from pipeline.fusion.clusters import Head, class_means, clusters
from pipeline.fusion.experts import FEW, Gate, Grouped, fit_gate
from pipeline.fusion.mixture import MeanDistance
from pipeline.fusion.moe import RAREST
from pipeline.fusion.strategies._base import Candidate, Fusion, NotApplicableError, Problem, combine, register
from pipeline.params.sections import OWN_EXTRACTORS


@dataclass(frozen=True)
class Grouping:
    """The groups that images are divided into.

    real: K groups of the real images. head: names the group of an image by what the ruler number `ruler` sees of it;
    None where none of the rulers can be packed with the sampler. by_class: whether the groups are the classes. asking:
    whether candidates that know classes are asked for them; the others are looked through.
    """

    real: NDArray[np.int64]
    count: int
    by_class: bool
    head: Head | None
    ruler: int
    asking: bool = True

    def asks(self, candidate: Candidate) -> bool:
        """Whether a candidate can be asked for a group, so that no head has to look for images of it."""
        return self.asking and self.by_class and candidate.asked is not None

    def of(self, candidate: Candidate) -> Grouped:
        """Return the candidate's samples with their groups."""
        features = candidate.read()
        if self.asks(candidate):
            assert candidate.asked is not None
            return Grouped(features, candidate.asked)
        assert self.head is not None
        return Grouped(features, self.head.groups(features[self.ruler]))


@dataclass(frozen=True)
class Fitted:
    """Weights for members of known groups. found: K×M, shares of the images that members draw; zeros if asked."""

    grouping: Grouping
    experts: list[Candidate]
    found: Matrix
    gate: Gate

    @property
    def held_out(self) -> float:
        """The distance on images that took no part, of what is delivered."""
        strength = self.gate.strength
        return self.gate.held_out["without groups" if strength is None else f"{strength:g}"]


@register("moe")
def moe(problem: Problem) -> Fusion:
    """Ask members that know classes, or look through all of them alike: what is nearer on images that took no part.

    A member that is asked for a class draws what it takes for that class, which need not be what the real class is.
    """
    grouping = group(problem)
    pool = [c for c in problem.pool if grouping.head is not None or grouping.asks(c)]
    if not pool:
        raise NotApplicableError("no member can be asked for a class, and no extractor of our own tells images apart")
    experts = experts_among(pool, problem)
    ways = [fit(problem, grouping, experts)]
    if grouping.head is not None and any(map(grouping.asks, experts)):
        ways.append(fit(problem, replace(grouping, asking=False), experts))
    able = [way for way in ways if way is not None]
    if not able:
        raise NotApplicableError("too few images to give groups weights of their own; raise evaluation.samples")
    return delivered(problem, min(able, key=lambda way: way.held_out))


def fit(problem: Problem, grouping: Grouping, experts: list[Candidate]) -> Fitted | None:
    """Return the weights of these members; None where there are too few images for that."""
    members = [grouping.of(expert) for expert in experts]
    counts = np.stack([member.counts(grouping.count) for member in members], axis=1)
    asked = np.array([grouping.asks(expert) for expert in experts])
    known = np.arange(grouping.count)[:, None] < [expert.classes for expert in experts]
    able = np.where(asked, known, counts >= np.maximum(FEW, RAREST * counts.sum(axis=0)))
    found = np.where(asked, 0.0, counts / counts.sum(axis=0))
    real, most = Grouped(problem.real.features, grouping.real), 1 / problem.settings.min_acceptance
    gate = fit_gate(real, members, able, lambda joint: draws_of(joint, found), most)
    return None if gate is None else Fitted(grouping, experts, found, gate)


def group(problem: Problem) -> Grouping:
    """Divide by class where the real images have classes, else by clusters of what the first ruler of our own sees."""
    own = [i for i, ruler in enumerate(problem.rulers) if ruler.extractor in OWN_EXTRACTORS]
    ruler = own[0] if own else 0
    points, labels = problem.real.features[ruler], problem.real.labels
    if labels is not None:
        count = max([1 + int(labels.max()), *(candidate.classes for candidate in problem.pool)])
        return Grouping(labels, count, True, class_means(points, labels, count) if own else None, ruler)
    # A cluster of fewer real images than two halves need to be measured is noise.
    count = max(min(problem.settings.moe_clusters, len(points) // (2 * FEW)), 1)
    head = clusters(points, count, problem.seed)
    return Grouping(head.groups(points), len(head.biases), False, head if own else None, ruler)


def experts_among(pool: list[Candidate], problem: Problem) -> list[Candidate]:
    """Return each member's nearest snapshot, and whatever else has a part in the best mixture without groups."""
    weights = MeanDistance.of([c.views for c in pool], problem.real.views, unbiased=True).optimum().weights
    nearest = {candidate.id for candidate in problem.best_of_each_member()}
    return [c for c, weight in zip(pool, weights, strict=True) if weight > 1e-3 or c.id in nearest]


def draws_of(joint: Matrix, found: Matrix) -> float:
    """Return how many images the sampler draws for one that it delivers, as `MoeSampler` says.

    joint: K×M, what group k from member m is of the whole. found: K×M, zeros for a member that is asked.
    """
    tries = np.divide(joint, found, out=np.zeros(joint.shape), where=found > 0).max(axis=0)
    return float(np.where(found.any(axis=0), tries, joint.sum(axis=0)).sum())


def delivered(problem: Problem, fitted: Fitted) -> Fusion:
    """Return the sampler of fitted weights, and the evidence for them."""
    grouping, experts, gate = fitted.grouping, fitted.experts, fitted.gate
    overall = gate.plain if gate.strength is None else gate.shares @ gate.table
    weights = {c.id: float(weight) for c, weight in zip(experts, overall, strict=True) if weight > 0}
    evidence = {
        "weights": weights,
        "fit": gate.fit,
        "fit_optimum": gate.optimum.value,
        "kkt_residual": gate.optimum.gap,
        "steps": gate.optimum.steps,
        "groups": grouping.count,
        "asked": sum(map(grouping.asks, experts)),
        "shrinkage": 1.0 if gate.strength is None else gate.strength,
        "held_out": gate.held_out,
        "blend": gate.blend,
        "acceptance": 1.0,
    }
    if gate.strength is None:
        return Fusion(combine("mixture", weights), evidence)
    evidence["acceptance"] = 1 / draws_of(gate.shares[:, None] * gate.table, fitted.found)
    return Fusion(recipe_of(problem, fitted, overall), evidence)


def recipe_of(problem: Problem, fitted: Fitted, overall: Vector) -> dict[str, Any]:
    """Return the recipe of the members that draw any group; `weights` says what comes from each of them in all."""
    grouping, experts, gate = fitted.grouping, fitted.experts, fitted.gate
    used = np.flatnonzero(gate.table.any(axis=0))
    recipe = {
        "kind": "moe",
        "by_class": grouping.by_class,
        "shares": gate.shares.tolist(),
        "table": gate.table[:, used].tolist(),
        "weights": overall[used].tolist(),
        "parts": [{"kind": "candidate", "id": experts[m].id} for m in used],
    }
    if grouping.head is None or all(grouping.asks(experts[m]) for m in used):
        return recipe
    ruler = problem.rulers[grouping.ruler]
    head = grouping.head.before(ruler)
    return recipe | {
        "companions": {"router": f"extractors/{ruler.extractor}"},
        "head": {"weights": head.weights.tolist(), "biases": head.biases.tolist()},
        "found": fitted.found[:, used].tolist(),
    }
