"""The mixture of all candidates with the smallest kernel distance (KID): a quadratic programme on the simplex."""

from pipeline.fusion.kernel import MeanKernel
from pipeline.fusion.kernel_distance import KernelDistance
from pipeline.fusion.simplex import gap_at, prune
from pipeline.fusion.strategies._base import Fusion, Problem, combine, register


@register("weighted_kid")
def weighted_kid(problem: Problem) -> Fusion:
    """Solve with the biased estimate, which is convex; report the unbiased one."""
    parts = [candidate.read() for candidate in problem.pool]
    kernel = MeanKernel.of([*parts, problem.real.features], problem.seed)
    distance = KernelDistance.of(kernel, len(parts), [len(parts)])
    optimum = distance.optimum()
    weights = prune(optimum.weights)
    _, gradient = distance(weights)
    by_id = {c.id: float(w) for c, w in zip(problem.pool, weights, strict=True) if w > 0}
    evidence = {
        "weights": by_id,
        "fit_kid": distance.unbiased(weights),
        "kkt_residual": optimum.gap,
        "kkt_residual_delivered": gap_at(weights, gradient),
        "steps": optimum.steps,
        "kernel_rows": int(kernel.rows[:-1].max()),
    }
    return Fusion(combine("mixture", by_id), evidence)
