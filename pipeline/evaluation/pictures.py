"""Sheets of sample images."""

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from pipeline.files import replacing

MARGIN = 1  # white pixels between images


def grid(images: Tensor, columns: int = 8) -> np.ndarray:
    """Lay images out row by row on white.

    images: uint8 N×C×H×W, C 1 or 3, N at least 1. Returns uint8 height×width×3; a last row may stay partly white.
    """
    n, channels, height, width = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    colour = images.expand(n, 3, height, width) if channels == 1 else images
    sheet = np.full((rows * (height + MARGIN) - MARGIN, columns * (width + MARGIN) - MARGIN, 3), 255, np.uint8)
    for i, image in enumerate(colour.permute(0, 2, 3, 1).cpu().numpy()):
        top, left = (i // columns) * (height + MARGIN), (i % columns) * (width + MARGIN)
        sheet[top : top + height, left : left + width] = image
    return sheet


def write_png(path: Path, image: np.ndarray) -> None:
    """Write a uint8 H×W×3 array as PNG, whole or not at all; equal arrays give equal bytes."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        Image.fromarray(image).save(file, format="PNG")
