"""A picture of what the networks will be shown."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.data.dataset import Split

TILES = 64
COLUMNS = 8
TILE_SIDE = 64  # pixels, at least; smaller images are enlarged by a whole factor
CAPTION = 14
GAP = 4


def preview(split: Split, classes: Sequence[str] | None) -> Image.Image:
    """Return a grid of up to 64 images spread evenly over a split, above its class name if it has one."""
    rows = np.unique(np.linspace(0, len(split) - 1, min(TILES, len(split))).astype(int))
    side = split.images.shape[-1]
    factor = max(1, -(-TILE_SIDE // side))
    width, height = side * factor + GAP, side * factor + GAP + (CAPTION if classes else 0)
    lines = -(-len(rows) // COLUMNS)
    grid = Image.new("RGB", (COLUMNS * width + GAP, lines * height + GAP), "white")
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(CAPTION - 4)
    for place, row in enumerate(rows):
        left, top = GAP + place % COLUMNS * width, GAP + place // COLUMNS * height
        grid.paste(_tile(split.images[row], factor), (left, top))
        if classes and split.labels is not None:
            name = classes[split.labels[row]]
            while font.getlength(name) > width - GAP:
                name = name[:-1]
            draw.text((left, top + side * factor + 1), name, fill="black", font=font)
    return grid


def _tile(pixels: np.ndarray, factor: int) -> Image.Image:
    """Return a uint8 C×H×W image as RGB, each pixel a square of `factor`×`factor`."""
    shown = np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(shown)).resize(
        (pixels.shape[2] * factor, pixels.shape[1] * factor), Image.Resampling.NEAREST
    )
