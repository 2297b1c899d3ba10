"""Which split an image belongs to: decided by its own pixels alone, so that no other image can move it."""

import hashlib
from itertools import accumulate

from PIL import Image

from pipeline.data.dataset import SPLITS
from pipeline.params import Splits

STRIP_PIXELS = 2**20


def pixel_hash(image: Image.Image) -> bytes:
    """Return 16 bytes that depend on an image's size and pixels (8-bit RGB), not on how its file was encoded."""
    width, height = image.size
    digest = hashlib.blake2b(f"{width}×{height}".encode(), digest_size=16)
    # In strips, for a copy of a large image would take hundreds of megabytes.
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        digest.update(image.crop((0, top, width, min(top + rows, height))).convert("RGB").tobytes())
    return digest.digest()


def split_of(digest: bytes, shares: Splits) -> str:
    """Return the split of an image: its hash, read as a number in [0, 1), falls into one of the four shares.

    The shares follow each other as train, val, gate, test, so an image moves only when these boundaries do.
    """
    position = int.from_bytes(digest[:8], "big") / 2**64
    ends = accumulate(getattr(shares, split) for split in SPLITS)
    # The last end is 1 up to rounding, so it is not compared.
    return next((split for split, end in zip(SPLITS[:-1], ends, strict=False) if position < end), SPLITS[-1])
