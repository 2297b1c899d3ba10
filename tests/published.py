"""Where real data sets lie for the tests that need them, in torchvision's layout."""

import os
from pathlib import Path

import pytest

PUBLISHED = Path(os.environ.get("CHORUS_TEST_DATA", "unnamed"))

needs_published = pytest.mark.skipif(
    not (PUBLISHED / "FashionMNIST").is_dir(),
    reason="CHORUS_TEST_DATA names no folder with MNIST and FashionMNIST",
)
