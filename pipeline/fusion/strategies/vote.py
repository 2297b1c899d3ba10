"""Of a few draws of the uniform mixture, the one that the members' discriminators rank as most real on average."""

from pipeline.fusion.strategies._base import Fusion, NotApplicableError, Problem, combine, register, uniform_weights


@register("vote")
def vote(problem: Problem) -> Fusion:
    members = problem.best_of_each_member()
    # Members that trained against one discriminator give it one vote.
    votes: dict[str, str] = {}
    for candidate in members:
        if candidate.critic:
            votes.setdefault(candidate.critic, candidate.id)
    critics = list(votes.values())
    if not critics:
        raise NotApplicableError("no member has a discriminator")
    weights = uniform_weights(members)
    source = combine("mixture", weights)
    recipe = {"kind": "vote", "source": source, "critics": critics, "draws": problem.settings.vote_draws}
    return Fusion(recipe, {"weights": weights, "critics": critics})
