"""Of a few draws of the uniform mixture, the one that the members' discriminators rank as most real on average."""

from pipeline.fusion.strategies._base import Fusion, Problem, combine, register, uniform_weights


@register("vote")
def vote(problem: Problem) -> Fusion:
    members = problem.best_of_each_member()
    critics = problem.critics()
    weights = uniform_weights(members)
    source = combine("mixture", weights)
    recipe = {"kind": "vote", "source": source, "critics": critics, "draws": problem.settings.vote_draws}
    return Fusion(recipe, {"weights": weights, "critics": critics})
