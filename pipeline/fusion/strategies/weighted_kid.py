"""The mixture of all candidates with the smallest kernel distance (KID), a quadratic programme; shrunk too."""

from pipeline.fusion.kernel_distance import KernelDistance
from pipeline.fusion.pool_kernel import pool_kernel
from pipeline.fusion.shrinkage import divisions, shrunk
from pipeline.fusion.simplex import gap_at, prune
from pipeline.fusion.strategies._base import Fusion, Problem, combine, register


@register("weighted_kid")
def weighted_kid(problem: Problem) -> Fusion:
    """Solve with the biased estimate, which is convex; report the unbiased one.

    The halves of the real images that cross-fitting needs are parts of the same matrix of mean kernel values.
    """
    kernel, count, halved = pool_kernel(problem), len(problem.pool), len(divisions(len(problem.real), problem.seed))
    distance, *sides = (KernelDistance.of(kernel, count, [count + place]) for place in range(1 + halved))
    optimum = distance.optimum()
    # Each division comes both ways, one after the other.
    halves = [(sides[place ^ 1], side) for place, side in enumerate(sides)]
    members = [candidate.member for candidate in problem.pool]
    shrinkage = shrunk(prune(optimum.weights), distance, halves, members, KernelDistance.unbiased)
    _, gradient = distance(shrinkage.weights)
    by_id = {c.id: float(w) for c, w in zip(problem.pool, shrinkage.weights, strict=True) if w > 0}
    evidence = {
        "weights": by_id,
        "fit_kid": distance.unbiased(shrinkage.weights),
        "kkt_residual": optimum.gap,
        "kkt_residual_delivered": gap_at(shrinkage.weights, gradient),
        "steps": optimum.steps,
        "shrinkage": shrinkage.share,
        "cross_fitted_kid": shrinkage.held_out,
        "optimism_kid": shrinkage.optimism,
        "kernel_rows": int(kernel.rows[:count].max()),
    }
    return Fusion(combine("mixture", by_id), evidence)
