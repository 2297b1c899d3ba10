"""A mixture with weights of its own for each class, shrunk towards those of the mixture of all classes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.frechet import Vector
from pipeline.fusion.experts import Gate, Grouped, fit_gate
from pipeline.fusion.mixture import MeanDistance
from pipeline.fusion.strategies._base import Candidate, Fusion, NotApplicableError, Problem, combine, register


@register("moe")
def moe(problem: Problem) -> Fusion:
    conditional = tuple(candidate for candidate in problem.pool if candidate.asked is not None)
    if problem.real.labels is None or not conditional:
        raise NotApplicableError("no member can be asked for a class")
    experts = experts_among(conditional, problem)
    classes = max(1 + int(problem.real.labels.max()), *(expert.classes for expert in experts))
    members = [Grouped(expert.read(), asked_of(expert)) for expert in experts]
    able = np.array([[k < expert.classes for expert in experts] for k in range(classes)])
    gate = fit_gate(Grouped(problem.real.features, problem.real.labels), members, able)
    if gate is None:
        raise NotApplicableError("too few images to give classes weights of their own; raise evaluation.samples")
    return delivered(gate, [expert.id for expert in experts])


def experts_among(pool: tuple[Candidate, ...], problem: Problem) -> list[Candidate]:
    """Return each member's nearest snapshot and whatever else has a part in the best mixture of all classes."""
    weights = MeanDistance.of([candidate.views for candidate in pool], problem.real.views).optimum().weights
    nearest = {id(candidate) for candidate in problem.best_of_each_member()}
    return [c for c, weight in zip(pool, weights, strict=True) if weight > 1e-3 or id(c) in nearest]


def asked_of(candidate: Candidate) -> NDArray[np.int64]:
    """Return the classes of a conditional candidate's samples."""
    assert candidate.asked is not None
    return candidate.asked


def delivered(gate: Gate, names: list[str]) -> Fusion:
    """Return the sampler of fitted weights, and the evidence for them."""
    overall = gate.plain if gate.strength is None else gate.shares @ gate.table
    weights = {name: float(weight) for name, weight in zip(names, overall, strict=True) if weight > 0}
    evidence = {
        "weights": weights,
        "fit": gate.fit,
        "fit_optimum": gate.optimum.value,
        "kkt_residual": gate.optimum.gap,
        "steps": gate.optimum.steps,
        "shrinkage": 1.0 if gate.strength is None else gate.strength,
        "held_out": gate.held_out,
    }
    if gate.strength is None:
        return Fusion(combine("mixture", weights), evidence)
    return Fusion(recipe_of(gate, names, overall), evidence)


def recipe_of(gate: Gate, names: list[str], overall: Vector) -> dict[str, Any]:
    """Return the recipe of the members that draw any class; `weights` says what comes from each of them in all."""
    used = np.flatnonzero(gate.table.any(axis=0))
    return {
        "kind": "moe",
        "by_class": True,
        "shares": gate.shares.tolist(),
        "table": gate.table[:, used].tolist(),
        "weights": overall[used].tolist(),
        "parts": [{"kind": "candidate", "id": names[m]} for m in used],
    }
