"""Mean kernel values of a whole problem: what strategies and the report ask for, in one pass over the features."""

from pipeline.fusion.kernel import MeanKernel
from pipeline.fusion.shrinkage import divisions
from pipeline.fusion.strategies._base import Problem


def pool_kernel(problem: Problem) -> MeanKernel:
    """Return those between the candidates, the real images to fit on, their halves, and `Problem.held_out` where given.

    Parts come in this order; the halves in that of `divisions`. Computed when it is first asked for.
    """
    return problem.once("kernel", _computed)


def _computed(problem: Problem) -> MeanKernel:
    halves = [problem.real.take(outside) for _, outside in divisions(len(problem.real), problem.seed)]
    reals = [problem.real, *halves, *([] if problem.held_out is None else [problem.held_out])]
    parts = [*(candidate.read() for candidate in problem.pool), *(real.features for real in reals)]
    return MeanKernel.of(parts, problem.seed)
