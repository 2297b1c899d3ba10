"""What mixing can gain: the members' disagreement, and how far their errors point the same way."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.fusion.kernel_distance import KernelDistance
from pipeline.fusion.pool_kernel import pool_kernel
from pipeline.fusion.strategies._base import Problem


def diversity(problem: Problem, members: Sequence[str], mixtures: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Return kernel distances (unbiased KID in relative features) of mixtures, and the correlation of members' errors.

    problem: one with images held out, which all is measured against. members: ids of candidates that are compared, in
    their order. mixtures: weights by id, by the mixture's name. Of each mixture: `kid`, the weighted `mean` of its
    parts' and their `ambiguity`; kid = mean − ambiguity, so no mixture of parts like these is nearer than their
    disagreement allows.
    `correlation`: as of `KernelDistance.error_correlation`, with null for NaN.
    """
    assert problem.held_out is not None
    place = {candidate.id: i for i, candidate in enumerate(problem.pool)}
    kernel = pool_kernel(problem)
    distance = KernelDistance.of(kernel, len(place), [len(kernel.rows) - 1])
    each, rows = distance.of_each(), []
    for name, by_id in mixtures.items():
        weights = np.zeros(len(place))
        weights[[place[part] for part in by_id]] = list(by_id.values())
        mean, gain = float(weights @ each), distance.ambiguity(weights)
        rows.append({"name": name, "mean": mean, "ambiguity": gain, "kid": distance.unbiased(weights)})
    compared = [place[name] for name in members]
    cosines = distance.error_correlation()[np.ix_(compared, compared)]
    return {
        "images": int(kernel.rows[-1]),
        "mixtures": rows,
        "members": list(members),
        "kid": [float(value) for value in each[compared]],
        "correlation": [[None if math.isnan(value) else float(value) for value in row] for row in cosines],
    }


def plain_mixtures(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the weights by id of those strategies' recipes that are mixtures of candidates, by the strategy's name."""
    found = {}
    for row in rows:
        recipe = row.get("recipe", {})
        parts = recipe.get("parts", [])
        if recipe.get("kind") == "mixture" and all(part["kind"] == "candidate" for part in parts):
            found[row["name"]] = dict(zip((part["id"] for part in parts), recipe["weights"], strict=True))
    return found
