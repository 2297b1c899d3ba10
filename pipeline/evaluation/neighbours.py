"""How two sets of points lie among each other, told by distances to nearest neighbours.

The ball of a point reaches to its k-th nearest neighbour in its own set. All pairs are compared, a block of rows at a
time, so that memory grows with the number of points and not with its square. Points are floating N×D on one device.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.randomness import generator

ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class Manifold:
    """precision, recall: of Kynkäänniemi et al. (arXiv:1904.06991), in [0, 1]. density: of Naeem et al., at least 0."""

    precision: float
    recall: float
    density: float


def radii(points: Tensor, neighbours: int) -> Tensor:
    """Return the distance of each point to its `neighbours`-th nearest other one; there must be that many others."""
    return torch.cat([_smallest(block, points, neighbours + 1) for block in points.split(ROWS_AT_ONCE)])


def _smallest(block: Tensor, points: Tensor, rank: int) -> Tensor:
    return torch.cdist(block, points).topk(rank, largest=False).values[:, -1]


def manifold(fake: Tensor, real: Tensor, neighbours: int) -> Manifold:
    """Return the share of fakes in a real ball, of reals in a fake ball, and how many real balls hold a fake.

    The last is the density (Naeem et al., arXiv:2002.09797, eq. 3), divided by `neighbours`: 1 in expectation where
    both sets follow one distribution, more where fakes crowd in the densest regions. Unlike precision it is not won by
    the ball of one outlier. Each set needs more points than `neighbours`.
    """
    reach = radii(fake, neighbours)
    recalled, balls = 0, torch.zeros(len(fake), dtype=torch.int64, device=fake.device)
    for block, own in zip(real.split(ROWS_AT_ONCE), radii(real, neighbours).split(ROWS_AT_ONCE), strict=True):
        distances = torch.cdist(block, fake)
        recalled += int((distances <= reach).any(1).sum())
        balls += (distances <= own[:, None]).sum(0)
    density = float(balls.sum()) / (neighbours * len(fake))
    return Manifold(float((balls > 0).double().mean()), recalled / len(real), density)


def covered(fake: Tensor, real: Tensor, neighbours: int) -> Tensor:
    """Return for each real point whether a fake lies in its ball: N bool, their mean is the coverage (ibid., eq. 4).

    Of equally many points of one distribution 1 - 2^-neighbours are covered, in the limit of many; the more fakes
    there are the more, so only coverages of equal numbers compare (see `equally_many`).
    """
    pairs = zip(real.split(ROWS_AT_ONCE), radii(real, neighbours).split(ROWS_AT_ONCE), strict=True)
    return torch.cat([(torch.cdist(block, fake) <= own[:, None]).any(1) for block, own in pairs])


def some(n: int, most: int, seed: int) -> Tensor:
    """Return the numbers of at most `most` of n rows, drawn at random: points may be stored class by class."""
    if n <= most:
        return torch.arange(n)
    return torch.randperm(n, generator=generator(seed, "some"))[:most].sort().values


def equally_many(fakes: int, reals: int, most: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return row numbers of as many fakes as reals, at most `most`: a random part of the larger set."""
    count = min(fakes, reals, most)
    return some(fakes, count, seed), some(reals, count, seed)
