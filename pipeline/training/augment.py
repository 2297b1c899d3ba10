"""Differentiable augmentation (Zhao, Liu, Lin, Zhu, Han 2020, "Differentiable Augmentation for Data-Efficient GAN
Training"): the same random transformations on all that the discriminator sees, real or generated, in both updates.

Each transformation maps images …×C×H×W, in [-1, 1] before the first, to the same shape, draws from torch's global
stream anew for each image, and lets gradients through. Adding one here and to `params.Family.augment` is all that a
new one takes. Ranges are the paper's (section 3, "DiffAugment with Translation, Cutout and Color").
"""

from collections.abc import Callable, Collection

import torch
from torch import Tensor


def uniform(images: Tensor) -> Tensor:
    """Return one number from [0, 1) an image, of shape …×1×1×1."""
    return torch.rand(*images.shape[:-3], 1, 1, 1, device=images.device)


def color(images: Tensor) -> Tensor:
    """Change brightness by [-0.5, 0.5], saturation by a factor of [0, 2], contrast by a factor of [0.5, 1.5]."""
    images = images + (uniform(images) - 0.5)
    images = torch.lerp(images.mean(-3, keepdim=True), images, 2 * uniform(images))
    return torch.lerp(images.mean((-3, -2, -1), keepdim=True), images, 0.5 + uniform(images))


def translation(images: Tensor) -> Tensor:
    """Move by whole pixels, up to an eighth of the side each way; what comes in is 0."""
    size = images.shape[-1]
    reach = round(size / 8)
    flat = images.flatten(0, -4)
    place = torch.arange(size, device=images.device)
    # Places outside the image are sent to the border of zeros around it.
    rows, columns = (
        (place + shift + 1).clamp(0, size + 1)
        for shift in torch.randint(-reach, reach + 1, (2, len(flat), 1), device=images.device)
    )
    padded = torch.nn.functional.pad(flat, (1, 1, 1, 1)).permute(0, 2, 3, 1)
    each = torch.arange(len(flat), device=images.device)[:, None, None]
    moved = padded[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return moved.unflatten(0, images.shape[:-3])


def cutout(images: Tensor) -> Tensor:
    """Set a square of half the side to 0; its centre is anywhere in the image, so it may reach over any edge."""
    size = images.shape[-1]
    half = size // 2
    place = torch.arange(size, device=images.device)
    top, left = (
        torch.randint(-(half // 2), size + 1 - (half + 1) // 2, (*images.shape[:-3], 1, 1, 1), device=images.device)
        for _ in range(2)
    )
    rows, columns = place[:, None], place
    inside = (rows >= top) & (rows < top + half) & (columns >= left) & (columns < left + half)
    return images * ~inside


TRANSFORMATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "color": color,
    "translation": translation,
    "cutout": cutout,
}


def augment(images: Tensor, policy: Collection[str]) -> Tensor:
    """Apply the policy's transformations to images …×C×H×W, in the registry's order; an empty one changes nothing."""
    if not policy:
        return images
    images = images.float()
    for name in (name for name in TRANSFORMATIONS if name in policy):
        images = TRANSFORMATIONS[name](images)
    return images
