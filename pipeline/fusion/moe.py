"""The sampler of a mixture of experts: which member draws an image depends on the group that it is of."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from pipeline.errors import ChorusError
from pipeline.evaluation.networks import to_float
from pipeline.fusion.samplers import Sampler, choices, in_blocks, passes_of, to_uint8, uniform
from pipeline.randomness import derive_seed

RAREST = 0.01  # share of a part's images that a group has to hold for it to be looked for among them
TRIES = 2000  # of an image; a group of that share is missed by all of them once in 5·10⁸ times


class Router(nn.Module):
    """Tells the group of an image: the highest of linear scores of an extractor's features.

    network: maps B×C×H×W to features B×D, and more. weights: K×D, biases: K, as of `pipeline.fusion.clusters.Head`.
    """

    weights: Tensor
    biases: Tensor

    def __init__(self, network: nn.Module, weights: Sequence[Sequence[float]], biases: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float64))
        self.register_buffer("biases", torch.tensor(biases, dtype=torch.float64))

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Map B×C×H×W in [-1, 1] to B int64; the images are rounded to whole levels first, as they are delivered."""
        features = self.network(to_float(to_uint8(images)))[0].double()
        return (features @ self.weights.T + self.biases).argmax(1)


class MoeSampler(Sampler):
    """Σₖ πₖ Σₘ wₖₘ pₘ(·|k): a group k drawn with its share πₖ, then a part with the weights of that group.

    A part that knows classes is asked for the class, where the groups are classes and `found` has zeros for it: one
    pass. Of any other part images
    are drawn until one is of the group, as the router tells. It is not settled beforehand which group that has to be:
    part m is tried with probability cₘ / Σc, where cₘ = maxₖ πₖ wₖₘ / fₖₘ, and an image of group k is accepted with
    probability πₖ wₖₘ / (fₖₘ cₘ), which makes Σc tries an image (von Neumann 1951) and not one for each group. An
    image of an asked class takes Σₘ wₖₘ / fₖₘ. A try costs the part's passes and one of the router, which is counted by
    its operations.

    shares: K, πₖ. table: K×M, wₖₘ; rows sum to 1, or hold zeros where no part draws the group. by_class: whether the
    groups are the classes. router, found: None where all parts are asked; found: K×M, fₖₘ, the share of the images of
    part m that are of group k; zeros for a part that is asked.
    """

    def __init__(
        self,
        parts: Sequence[Sampler],
        shares: Sequence[float],
        table: Sequence[Sequence[float]],
        *,
        by_class: bool,
        router: nn.Module | None = None,
        found: Sequence[Sequence[float]] | None = None,
    ) -> None:
        self.parts, self.router = list(parts), router
        self.shares = torch.tensor(shares, dtype=torch.float64)
        self.table = torch.tensor(table, dtype=torch.float64)
        self.classes = len(self.table) if by_class else 0
        self.lacking = tuple((~self.table.any(1)).nonzero().flatten().tolist()) if by_class else ()
        able = torch.tensor([by_class and part.classes > 0 for part in self.parts])
        self.asked = able if found is None else able & (torch.tensor(found) == 0).all(0)
        self.joint = self.shares[:, None] * self.table
        needed = torch.zeros_like(self.table)
        if found is not None:
            # Tries of part m for an image of group k; of what has no weight none are made.
            shares_found = torch.tensor(found, dtype=torch.float64)
            needed = torch.where(self.table * ~self.asked > 0, 1 / shares_found, 0)
        self.tries = (self.joint * needed).max(0).values
        self.tries_for = self.table * needed
        self.accepted = torch.where(self.tries > 0, self.joint * needed / self.tries, 0)

    @property
    def cost(self) -> float:
        direct = (self.joint.sum(0) * self.asked).tolist()
        costs = zip(self.parts, direct, self.tries.tolist(), self.routing_costs, strict=True)
        return sum(known * part.cost + tries * (part.cost + routing) for part, known, tries, routing in costs)

    @cached_property
    def routing_costs(self) -> list[float]:
        """Operations of the router's pass over those of a generator's pass, for each part."""
        return [
            passes_of(self.router, part) if self.router is not None and tries > 0 else 0.0
            for part, tries in zip(self.parts, self.tries.tolist(), strict=True)
        ]

    def at(self, rows: Tensor, seed: int, labels: Tensor | None = None) -> Tensor:
        groups = choices(rows, self.shares, seed, "group") if labels is None else labels
        nobody = groups[~self.table.any(1)[groups]]
        if len(nobody):
            raise ChorusError(f"no member draws label {int(nobody[0])}: they drew too few of it when they were fused")
        experts = drawn(rows, self.table[groups], seed, "expert")
        known = self.asked[experts]
        images = []
        if known.any():
            images.append(self.by_parts(rows[known], experts[known], seed, groups[known]))
        if not known.all():
            images.append(self.until_accepted(rows[~known], seed, None if labels is None else labels[~known]))
        order = torch.cat([known.nonzero().flatten(), (~known).nonzero().flatten()]).argsort()
        return torch.cat(images)[order.to(images[0].device)]

    def by_parts(self, rows: Tensor, experts: Tensor, seed: int, labels: Tensor | None = None) -> Tensor:
        """Return the image of each row by the part that is named: B×C×H×W. experts, labels: B int64."""
        places = [(experts == m).nonzero().flatten() for m in range(len(self.parts))]
        images = torch.cat(
            [
                self.parts[m].at(rows[at], derive_seed(seed, "expert", m), None if labels is None else labels[at])
                for m, at in enumerate(places)
                if len(at)
            ]
        )
        return images[torch.cat(places).argsort().to(images.device)]

    def until_accepted(self, rows: Tensor, seed: int, labels: Tensor | None) -> Tensor:
        """Return an image for each row by the parts that have to be routed; labels: the asked classes, B int64."""
        assert self.router is not None
        left = torch.arange(len(rows))
        places, images = [], []
        for attempt in range(TRIES):
            stream = derive_seed(seed, "try", attempt)
            wanted = None if labels is None else labels[left]
            weights = self.tries.expand(len(left), -1) if wanted is None else self.tries_for[wanted]
            experts = drawn(rows[left], weights, stream, "expert")
            batch = self.by_parts(rows[left], experts, stream)
            groups = in_blocks(self.router, batch).cpu()
            if wanted is None:
                taken = uniform(rows[left], stream, "accept") < self.accepted[groups, experts]
            else:
                taken = groups == wanted
            places.append(left[taken])
            images.append(batch[taken.to(batch.device)])
            left = left[~taken]
            if not len(left):
                return torch.cat(images)[torch.cat(places).argsort().to(batch.device)]
        raise ChorusError(
            f"{TRIES} tries gave no image of the group that is wanted: the members draw others than when they were "
            "fused; run `dvc repro fuse`"
        )


def drawn(rows: Tensor, weights: Tensor, seed: int, purpose: str) -> Tensor:
    """Return B int64 indices, row i's drawn with the weights B×M of its own, which need not sum to 1."""
    ends = weights.cumsum(1)
    # Divided by the last, so that rounding leaves no gap at the end where a part without weight would be drawn.
    return (ends / ends[:, -1:] <= uniform(rows, seed, purpose)[:, None]).sum(1)
