"""Mixture weights of their own for each group of images (a class, or a cluster of features), fitted all at once.

What group k contributes is Σₘ wₖₘ pₘ(·|k), and it does so with the share πₖ of the group among the real images. So the
whole, Σₖ πₖ Σₘ wₖₘ pₘ(·|k), is linear in the weights, and its Fréchet distance is as convex in them as that of a plain
mixture: the parts are cells (group, member), the weights lie on a product of simplices. Gating as in a mixture of
experts (Jacobs et al. 1991), with a fixed gate πₖ wₖₘ instead of a network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.frechet import Matrix, Vector, Views, moments
from pipeline.fusion.mixture import MeanDistance
from pipeline.fusion.simplex import Blocks, Optimum, minimise, prune

Mask = NDArray[np.bool_]
FEW = 20  # images below which the moments of a cell say nothing
QUARTERS = 4  # the images are divided into these; two of them fit and the other two test
STRENGTHS = (1.0, 0.75, 0.5, 0.25, 0.0)  # shares of the global weights in those of each group


@dataclass(frozen=True)
class Grouped:
    """Images of known groups. features: N×d float64 for each ruler, relative. group: N int64, at least 0."""

    features: tuple[Matrix, ...]
    group: NDArray[np.int64]

    def take(self, rows: NDArray[np.bool_]) -> "Grouped":
        """Return some of the images."""
        return Grouped(tuple(features[rows] for features in self.features), self.group[rows])

    def quarters(self, wanted: Sequence[int]) -> "Grouped":
        """Return the images of some quarters. Rows come in random order, so that every fourth one is a random part."""
        return self.take(np.isin(np.arange(len(self.group)) % QUARTERS, wanted))

    def counts(self, groups: int) -> NDArray[np.int64]:
        """Return the number of images in each group."""
        return np.bincount(self.group, minlength=groups)

    @property
    def views(self) -> Views:
        """The moments of all images."""
        return tuple(map(moments, self.features))


@dataclass(frozen=True)
class ExpertDistance:
    """The distance of Σₖ πₖ Σₘ wₖₘ pₘ(·|k) from the real images as a function of the table of weights.

    cells: of the measured cells, those of `distance`. measured: K×M. shares: πₖ, 0 for a group without measured cells.
    """

    distance: MeanDistance
    measured: Mask
    shares: Vector

    @classmethod
    def of(cls, real: Grouped, members: Sequence[Grouped], measured: Mask, shares: Vector) -> "ExpertDistance":
        """Build from images; each measured cell needs at least 2 of them. shares: K, scaled to the measured groups."""
        measured = measured & (shares > 0)[:, None]
        cells = [members[m].take(members[m].group == k).views for k, m in np.argwhere(measured)]
        kept = np.where(measured.any(axis=1), shares, 0.0)
        return cls(MeanDistance.of(cells, real.views), measured, kept / kept.sum())

    def __call__(self, table: Matrix) -> tuple[float, Matrix]:
        """Return the distance at K×M weights, whose rows are on the simplex, and its gradient; 0 where not measured."""
        value, gradient = self.distance((self.shares[:, None] * table)[self.measured])
        slopes = np.zeros(table.shape)
        slopes[self.measured] = gradient
        return value, slopes * self.shares[:, None]

    def optimum(self) -> tuple[Matrix, Optimum]:
        """Return the K×M weights of the smallest distance, rows of unmeasured groups 0, and the proof."""
        used = self.shares > 0
        block = np.repeat(np.cumsum(used) - 1, self.measured.sum(axis=1))
        found = minimise(self.distance, Blocks(block, self.shares[used]))
        table = np.zeros(self.measured.shape)
        table[self.measured] = found.weights
        table[used] /= self.shares[used, None]
        return table, found


@dataclass(frozen=True)
class Gate:
    """Fitted weights.

    shares: K, of the groups. table: K×M, rows on the simplex, of zeros where no member draws the group. plain: M, the
    weights of the mixture without groups. strength: the share of the plain weights in the table; None where the
    mixture without groups is as good. held_out: the distance on images that took no part, mean over the divisions, by
    strength and for the mixture `without groups`. blend: the share of the mixture without groups that was added so that
    fewer images are thrown away. optimum: before shrinking. fit: of what is delivered.
    """

    shares: Vector
    table: Matrix
    plain: Vector
    strength: float | None
    held_out: dict[str, float]
    blend: float
    optimum: Optimum
    fit: float


def fit_gate(
    real: Grouped,
    members: Sequence[Grouped],
    able: Mask,
    draws: Callable[[Matrix], float] = lambda joint: 1.0,
    most_draws: float = 1.0,
) -> Gate | None:
    """Fit the weights and choose by cross-fitting how far they are shrunk towards those of the mixture without groups.

    able: K×M, who can draw which group. Only cells with `FEW` images are measured, groups without any take the weights
    of the plain mixture. draws: how many images have to be drawn for one that is delivered, with the K×M shares of the
    whole that groups and members have: a convex function, and about 1 for the mixture without groups, of which as much
    is added as brings it down to `most_draws`. The distance is convex, too, so what is added costs no more than its
    share of what the weights gain. Returns None where fewer than `FEW` real images are of groups with measured cells.
    """
    groups, occurs = len(able), real.counts(len(able))
    measured = able & np.stack([member.counts(groups) >= FEW for member in members], axis=1) & (occurs > 0)[:, None]
    if occurs[measured.any(axis=1)].sum() < FEW:
        return None
    shares = occurs * able.any(axis=1)
    shares = shares / shares.sum()
    strength, held_out = _cross_fit(real, members, able, measured)
    problem = ExpertDistance.of(real, members, measured, shares)
    plain = MeanDistance.of([member.views for member in members], real.views, unbiased=True)
    weights = prune(plain.optimum().weights)
    own, optimum = problem.optimum()
    if strength is not None:
        rows = _shrunk(own, _spread(weights, able), strength)
        table = np.stack([prune(row) if row.any() else row for row in rows])
        frequencies = np.stack([member.counts(groups) / len(member.group) for member in members], axis=1)
        joint, blend = _affordable(shares[:, None] * table, weights * frequencies * able, draws, most_draws)
        if blend < 1:
            # A group that does not occur among the real images keeps its row.
            table = np.where(joint.any(axis=1, keepdims=True), _rows_scaled(joint), table)
            fit = problem.distance(joint[problem.measured] / joint[problem.measured].sum())[0]
            return Gate(joint.sum(axis=1), table, weights, strength, held_out, blend, optimum, fit)
    return Gate(shares, _spread(weights, able), weights, None, held_out, 0.0, optimum, plain.value(weights))


def _affordable(
    joint: Matrix, without_groups: Matrix, draws: Callable[[Matrix], float], most: float
) -> tuple[Matrix, float]:
    """Return the shares K×M with the least part of those without groups that takes no more draws, and that part."""
    without_groups = without_groups / without_groups.sum()

    def mixed(part: float) -> Matrix:
        return (1 - part) * joint + part * without_groups

    if draws(joint) <= most:
        return joint, 0.0
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if draws(mixed(middle)) <= most else (middle, high)
    return mixed(high), high


def _spread(weights: Vector | Matrix, able: Mask) -> Matrix:
    """Return weights, M or K×M, as a table: in each row among those that are able, equal ones where these have none."""
    table = weights * able
    table = np.where(table.any(axis=1, keepdims=True), table, able)
    return _rows_scaled(table)


def _rows_scaled(table: Matrix) -> Matrix:
    sums = table.sum(axis=1, keepdims=True)
    return np.divide(table, sums, out=np.zeros(table.shape), where=sums > 0)


def _shrunk(own: Matrix, plain: Matrix, strength: float) -> Matrix:
    """Return the mean of two tables; a row of zeros in the first is taken from the second."""
    return np.where(own.any(axis=1, keepdims=True), (1 - strength) * own + strength * plain, plain)


def _cross_fit(
    real: Grouped, members: Sequence[Grouped], able: Mask, measured: Mask
) -> tuple[float | None, dict[str, float]]:
    """Return the strength that the held-out distances justify (None: no groups at all), and the mean distances.

    Each half of the images, made of two quarters, fits, and the other one tests: real images and fakes both. The
    simplest is taken whose mean is within one standard error (of the paired differences) of the smallest (Breiman et
    al. 1984, section 3.4.3). The halves overlap, so that the error is a rule of thumb.
    """
    values = np.array(
        [_held_out(real, members, able, measured, half) for half in combinations(range(QUARTERS), QUARTERS // 2)]
    )
    excess = values - values[:, [values.mean(axis=0).argmin()]]
    noise = excess.std(axis=0, ddof=1) / np.sqrt(len(values))
    first = int(np.argmax(excess.mean(axis=0) <= noise))
    names = ["without groups", *(f"{strength:g}" for strength in STRENGTHS)]
    means = dict(zip(names, values.mean(axis=0).tolist(), strict=True))
    return (None, *STRENGTHS)[first], means


def _held_out(
    real: Grouped, members: Sequence[Grouped], able: Mask, measured: Mask, half: Sequence[int]
) -> list[float]:
    """Return the distances on the other half: of the mixture without groups, then at each strength."""
    other = [quarter for quarter in range(QUARTERS) if quarter not in half]
    inside, outside = ([member.quarters(part) for member in members] for part in (half, other))
    real_inside, real_outside = real.quarters(half), real.quarters(other)
    groups = len(able)
    enough = [np.stack([member.counts(groups) >= 2 for member in part], axis=1) for part in (inside, outside)]
    measured = measured & enough[0] & enough[1]
    shares = real_inside.counts(groups) / len(real_inside.group)
    weights = MeanDistance.of([member.views for member in inside], real_inside.views).optimum().weights
    own, _ = ExpertDistance.of(real_inside, inside, measured, shares).optimum()
    test = ExpertDistance.of(real_outside, outside, measured, shares)
    without_groups = MeanDistance.of([member.views for member in outside], real_outside.views)(weights)[0]
    plain = _spread(weights, able)
    tables = [_spread(_shrunk(own, plain, strength), measured) for strength in STRENGTHS]
    return [without_groups, *(test(table)[0] for table in tables)]
