"""Random views of small images, drawn on the CPU so that every device sees the same ones."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def uniform(n: int, low: float, high: float, rng: torch.Generator) -> Tensor:
    """Draw n floats in [low, high)."""
    return low + (high - low) * torch.rand(n, generator=rng)


def shift(images: Tensor, most: int, rng: torch.Generator) -> Tensor:
    """Move a batch B×C×S×S of floats by up to `most` pixels each way, one shift an image; edges are repeated."""
    size = images.shape[-1]
    padded = F.pad(images, (most,) * 4, mode="replicate")
    starts = torch.randint(0, 2 * most + 1, (2, len(images), 1), generator=rng)
    rows, columns = (starts + torch.arange(size)).to(images.device)
    index = torch.arange(len(images), device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def view(images: Tensor, rng: torch.Generator) -> Tensor:
    """Return a random affine and photometric view of a batch B×C×S×S in [-1, 1].

    Rotation by at most 15°, zoom 0.8 to 1.25, shear 0.2, shift 15 %, contrast 0.7 to 1.3, and one erased square of up
    to a third of the side. No blur and no noise: the features have to notice these, for they are generators' faults.
    """
    n, _, size, _ = images.shape
    angle, zoom = uniform(n, -math.pi / 12, math.pi / 12, rng), uniform(n, math.log(0.8), math.log(1.25), rng).exp()
    shear = uniform(n, -0.2, 0.2, rng)
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    move = [uniform(n, -0.3, 0.3, rng) for _ in range(2)]
    matrix = torch.stack([cos, shear * cos - sin, move[0], sin, shear * sin + cos, move[1]], 1).view(n, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False).to(images.device)
    seen = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    contrast = uniform(n, 0.7, 1.3, rng).to(images.device)[:, None, None, None]
    seen = ((seen + 1) * contrast - 1).clamp(-1, 1)
    side = uniform(n, 0, size / 3, rng)
    top, left = (uniform(n, 0, 1, rng) * (size - side) for _ in range(2))
    at = torch.arange(size)
    rows = (at >= top[:, None]) & (at < (top + side)[:, None])
    columns = (at >= left[:, None]) & (at < (left + side)[:, None])
    erased = (rows[:, None, :, None] & columns[:, None, None, :]).to(images.device)
    return seen.masked_fill(erased, -1.0)
