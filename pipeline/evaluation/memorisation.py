"""Whether generated images are copies of training images, told by the real images that are nearest to them.

Nearness is measured in a space that was fitted to no image at all (`coarse`): an extractor that has learnt from the
training images tells these apart more finely than others, and finds them nearer or farther for that alone.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import ChorusError

IMAGES = 10_000  # generated images that are looked at, at most
ROWS_AT_ONCE = 1000  # real images compared with all of them at once
CLOSEST = 0.1  # share of the images that are nearest to real ones
LEAST_SIDE, MOST_SIDE = 8, 16


@dataclass(frozen=True)
class Nearest:
    """The real image nearest to each of Q points.

    rows: Q int64. distances: Q. block_mean: mean distance to the nearest image of one block of them, over all whole
    blocks and all points.
    """

    rows: Tensor
    distances: Tensor
    block_mean: float

    def take(self, some: Tensor) -> "Nearest":
        """Return the same of some of the points."""
        return Nearest(self.rows[some], self.distances[some], self.block_mean)


@dataclass(frozen=True)
class Share:
    """How often a training image is the nearest real one.

    by_chance, deviation: mean and standard deviation over all ways of dividing the real images into training and
    held-out ones, which is what `value` is drawn from where images were made without a look at either. An image that is
    drawn over and over counts as what it is: one.
    """

    value: float
    by_chance: float
    deviation: float

    @property
    def beyond_chance(self) -> bool:
        """Whether it is three standard deviations more."""
        return self.value > self.by_chance + 3 * self.deviation


@dataclass(frozen=True)
class Memorisation:
    """How near images are to the training images.

    authentic: share that is authentic (Alaa et al., arXiv:2102.08921, sec. 3): farther from the nearest training image
    than that one is from its own nearest training image. Real images that nobody has seen are so too seldom to speak
    of copies without comparing with them, and images that look like nothing are all authentic.
    in_train: how often the nearest real image, of the training and the held-out ones together, is a training image.
    closest_in_train: the same of the tenth of the images that are nearest to a real one, compared with that one's own
    nearest real image: few copies among many images show here first.
    distance_ratio: mean distance to the nearest of some training images, over that to the nearest of equally many
    held-out images; 1 where nothing is memorised, None where both are 0. A copied image lies in one block of training
    images only, so where these are many more than the held-out ones copies lower it little.
    nearest: N int64, row of the nearest training image. relative: N, the distance to it over its distance to its own
    nearest training image; authentic where above 1, 0 of a copy.
    """

    authentic: float
    in_train: Share
    closest_in_train: Share
    distance_ratio: float | None
    nearest: Tensor
    relative: Tensor

    @property
    def suspicious(self) -> bool:
        """Whether training images are the nearest more often than chance explains."""
        return self.in_train.beyond_chance or self.closest_in_train.beyond_chance


def coarse(images: Tensor) -> Tensor:
    """Map uint8 images N×C×S×S to float points N×D: the pixels of small versions of them, centred and of length 1.

    Reduction to half the side (8 pixels at least, 16 at most) with antialiasing takes off noise and slight blur; after
    centring and scaling an image with other brightness or contrast is the same point. An image of one colour is 0.
    """
    side = min(max(images.shape[-1] // 2, LEAST_SIDE), MOST_SIDE)
    values = images.float()
    if images.shape[-1] > side:
        values = F.interpolate(values, size=(side, side), mode="bilinear", antialias=True)
    points = values.flatten(1)
    return F.normalize(points - points.mean(1, keepdim=True))


def memorisation(images: Tensor, train: np.ndarray, held_out: np.ndarray, device: torch.device) -> Memorisation:
    """Compare images (uint8 N×C×S×S, of them the first 10,000) with the training images and with held-out ones.

    train, held_out: uint8 arrays M×C×S×S, read a thousand images at a time, so that they may be memory-mapped. Raises
    `ChorusError` where there is no image, fewer than 2 training images or no held-out one.
    """
    if not len(images) or len(train) < 2 or not len(held_out):
        raise ChorusError(
            f"memorisation compares images with at least 2 training images and 1 held-out image, and there are "
            f"{len(images)}, {len(train)} and {len(held_out)}"
        )
    points = torch.cat([coarse(part.to(device)) for part in images[:IMAGES].split(ROWS_AT_ONCE)])
    equal = min(len(train), len(held_out))
    trained, held = nearest(points, train, equal), nearest(points, held_out, equal)
    own, own_of_all = spacing(trained.rows, train, held_out)
    _, held_own = spacing(held.rows, held_out, train)
    relative = torch.where(
        trained.distances <= held.distances, trained.distances / own_of_all, held.distances / held_own
    )
    closest = relative.nan_to_num(nan=0.0).argsort(stable=True)[: math.ceil(CLOSEST * len(points))]
    return Memorisation(
        authentic=float((trained.distances > own).double().mean()),
        in_train=share_in_train(trained, held, len(train), len(held_out)),
        closest_in_train=share_in_train(trained.take(closest), held.take(closest), len(train), len(held_out)),
        distance_ratio=trained.block_mean / held.block_mean if held.block_mean else None,
        nearest=trained.rows.cpu(),
        relative=(trained.distances / own).nan_to_num(nan=0.0, posinf=torch.inf).cpu(),
    )


def spacing(rows: Tensor, images: np.ndarray, others: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return how far these rows' images are from the nearest other of the images, and of these and the others."""
    hit, back = rows.unique(return_inverse=True)
    points = points_of(images, hit)
    across = nearest(points, others, len(others)).distances
    if len(images) == 1:
        return torch.full_like(across, torch.inf)[back], across[back]
    within = nearest(points, images, len(images), without=hit).distances
    return within[back], within.minimum(across)[back]


def share_in_train(trained: Nearest, held: Nearest, n_train: int, n_held: int) -> Share:
    """Return how often a training image is nearer than any held-out one; a tie counts by half.

    It is a sum of weights over those real images that are training images, the weight of a real image being the share
    of points that it is nearest to. Drawing n_train of all M = n_train + n_held without replacement gives the sum the
    variance p (1 - p) M / (M - 1) (sum of squared weights - 1 / M), p = n_train / M.
    """
    nearer = (trained.distances < held.distances).double() + (trained.distances == held.distances).double() / 2
    to_train = torch.bincount(trained.rows, weights=nearer, minlength=n_train)
    to_held = torch.bincount(held.rows, weights=1 - nearer, minlength=n_held)
    squares = float((to_train.square().sum() + to_held.square().sum()) / len(nearer) ** 2)
    total = n_train + n_held
    variance = n_train * n_held / (total * (total - 1)) * max(squares - 1 / total, 0.0)
    return Share(float(nearer.mean()), n_train / total, math.sqrt(variance))


def nearest(points: Tensor, images: np.ndarray, block: int, without: Tensor | None = None) -> Nearest:
    """Return which of the images is nearest to each point Q×D in the coarse space, ties to the lower row.

    block: images that count as one set for `block_mean`. without: for each point the row that is itself, left out.
    """
    distances = torch.full((len(points),), torch.inf, device=points.device)
    rows = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    means = []
    for first in range(0, len(images), block):
        end, within = min(first + block, len(images)), torch.full_like(distances, torch.inf)
        for start in range(first, end, ROWS_AT_ONCE):
            some = torch.arange(start, min(start + ROWS_AT_ONCE, end), device=points.device)
            pairs = torch.cdist(points, points_of(images, some))
            if without is not None:
                pairs.masked_fill_(some == without[:, None], torch.inf)
            found, where = pairs.min(1)
            within, rows = within.minimum(found), torch.where(found < distances, some[where], rows)
            distances = distances.minimum(found)
        if end == first + block:
            means.append(float(within.double().mean()))
    # Distances by matrix products lose their last digits in cancellation, so that a copy's would not be 0.
    pieces = zip(points.split(ROWS_AT_ONCE), rows.split(ROWS_AT_ONCE), strict=True)
    exact = [(part - points_of(images, its)).norm(dim=1) for part, its in pieces]
    return Nearest(rows, torch.cat(exact), float(np.mean(means)))


def points_of(images: np.ndarray, rows: Tensor) -> Tensor:
    """Return the points of some rows of the images, on the device of `rows`."""
    parts = (torch.from_numpy(np.array(images[part.cpu().numpy()])) for part in rows.split(ROWS_AT_ONCE))
    return torch.cat([coarse(part.to(rows.device)) for part in parts])
