"""The split of an image depends on its pixels and on nothing else."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from pipeline.data import splits
from pipeline.data.dataset import SPLITS
from pipeline.data.decode import decode
from pipeline.data.splits import pixel_hash, split_of
from pipeline.params import Splits
from tests.data.make_messy_folder import encoded

PIXELS = arrays.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3)))
DIGESTS = st.binary(min_size=16, max_size=16)


@st.composite
def shares(draw: st.DrawFn) -> Splits:
    parts = [draw(st.floats(0.05, 1)) for _ in SPLITS]
    return Splits(**{split: part / sum(parts) for split, part in zip(SPLITS, parts, strict=True)})


@given(PIXELS)
def test_lossless_copies_have_one_hash(pixels: np.ndarray) -> None:
    image = Image.fromarray(pixels)
    files = (encoded(image, "PNG"), encoded(image, "BMP"), encoded(image.convert("RGBA"), "WEBP", lossless=True))
    assert {pixel_hash(decode(data, 1000)) for data in files} == {pixel_hash(image)}


@given(PIXELS)
def test_grey_has_the_hash_of_its_colour_copy(pixels: np.ndarray) -> None:
    grey = Image.fromarray(pixels[..., 0])
    assert pixel_hash(grey) == pixel_hash(grey.convert("RGB"))


@given(PIXELS, st.data())
def test_one_changed_pixel_changes_the_hash(pixels: np.ndarray, data: st.DataObject) -> None:
    place = tuple(data.draw(st.integers(0, extent - 1)) for extent in pixels.shape)
    changed = pixels.copy()
    changed[place] ^= 1
    assert pixel_hash(Image.fromarray(changed)) != pixel_hash(Image.fromarray(pixels))


def test_large_images_are_hashed_in_strips_like_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 23, 3), dtype=np.uint8))
    whole = pixel_hash(image)
    for strip in (1, 50, 23 * 36, 23 * 37):
        monkeypatch.setattr(splits, "STRIP_PIXELS", strip)
        assert pixel_hash(image) == whole


def test_the_shape_counts() -> None:
    assert pixel_hash(Image.new("L", (4, 2))) != pixel_hash(Image.new("L", (2, 4)))


def test_hash_and_split_do_not_change_between_versions() -> None:
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    assert pixel_hash(image).hex() == "b1378b1af3b2c760193df50255a7944f"
    assert split_of(pixel_hash(image), Splits()) == "val"


@given(DIGESTS, shares())
def test_a_split_is_found_for_every_hash(digest: bytes, parts: Splits) -> None:
    assert split_of(digest, parts) in SPLITS


@given(DIGESTS, shares(), st.floats(0.01, 0.9))
def test_moving_the_later_boundaries_leaves_earlier_splits_alone(digest: bytes, parts: Splits, share: float) -> None:
    rest = parts.gate + parts.test
    moved = Splits(train=parts.train, val=parts.val, gate=rest * share, test=rest * (1 - share))
    before, after = split_of(digest, parts), split_of(digest, moved)
    assert before == after or {before, after} == {"gate", "test"}


def test_shares_come_out_nearly() -> None:
    random = np.random.default_rng(0)
    parts = Splits(train=0.4, val=0.3, gate=0.2, test=0.1)
    images = (Image.fromarray(random.integers(0, 256, (4, 4), dtype=np.uint8)) for _ in range(8000))
    counts = Counter(split_of(pixel_hash(image), parts) for image in images)
    for split in SPLITS:
        share = getattr(parts, split)
        assert abs(counts[split] / 8000 - share) < 4 * np.sqrt(share * (1 - share) / 8000)


def test_the_ends_belong_to_the_first_and_last_split() -> None:
    assert split_of(b"\x00" * 16, Splits()) == "train"
    assert split_of(b"\xff" * 16, Splits()) == "test"
    assert split_of(b"\x80" + b"\x00" * 15, Splits()) == "val"
