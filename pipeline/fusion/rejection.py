"""Rejection sampling by a density ratio."""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn

from pipeline.fusion.samplers import Sampler, in_blocks, passes_of, uniform
from pipeline.randomness import derive_seed


class RejectionSampler(Sampler):
    """Images of `source`, each kept with a probability that a ratio gives (von Neumann 1951; Azadi et al. 2019).

    ratio: maps images B×C×H×W to the logarithms of the probabilities; values above 0 count as 0. Where `tries` images
    were rejected, the one that it rates highest is delivered. acceptance: the share that is accepted, as measured when
    the ratio was fitted. Source and ratio know the images of an asked class as any others.

    An image costs (a draw from the source + a pass of the ratio) / acceptance. The ratio's pass is counted in units of
    a generator's by floating-point operations, so a small generator makes it dear.
    """

    def __init__(self, source: Sampler, ratio: nn.Module, tries: int, acceptance: float) -> None:
        self.source, self.ratio, self.tries, self.acceptance = source, ratio, tries, acceptance
        self.classes, self.lacking = source.classes, source.lacking

    @property
    def cost(self) -> float:
        return (self.source.cost + self.rating_cost) / self.acceptance

    @cached_property
    def rating_cost(self) -> float:
        """Operations of the ratio's pass over those of a generator's pass."""
        return passes_of(self.ratio, self.source)

    @torch.inference_mode()
    def at(self, rows: Tensor, seed: int, labels: Tensor | None = None) -> Tensor:
        return first_kept(self.source.at, self.ratio, rows, seed, labels, self.tries)


def first_kept(
    draw: Callable[[Tensor, int, Tensor | None], Tensor],
    rate: Callable[[Tensor], Tensor],
    rows: Tensor,
    seed: int,
    labels: Tensor | None,
    tries: int,
) -> Tensor:
    """Return for each row the first of what is drawn for it that is kept, or what is rated highest of `tries`.

    draw: as `Sampler.at`, of anything that has rows. rate: maps what was drawn to the logarithms of the probabilities
    to keep it. Try k of row i is row i of the k-th stream, whatever becomes of the other rows.
    """
    left = torch.arange(len(rows))
    found, best = torch.empty(0), torch.full((len(rows),), -torch.inf, dtype=torch.float64)
    for attempt in range(tries):
        stream = derive_seed(seed, "try", attempt)
        drawn = draw(rows[left], stream, None if labels is None else labels[left])
        rated = in_blocks(rate, drawn).double().cpu()
        accepted = uniform(rows[left], stream, "accept").log() < rated
        # What is rejected for good leaves the best that was seen.
        kept = accepted | (rated > best[left])
        if attempt == 0:
            found, kept = drawn, torch.ones_like(kept)
        else:
            found[left[kept]] = drawn[kept]
        best[left[kept]] = rated[kept]
        left = left[~accepted]
        if not len(left):
            break
    return found
