"""Where real data sets lie for the tests that need them, in torchvision's layout."""

import os
from pathlib import Path

import pytest

PUBLISHED = Path(os.environ.get("CHORUS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))

needs_published = pytest.mark.skipif(
    not (PUBLISHED / "FashionMNIST").is_dir(),
    reason=f"no MNIST and FashionMNIST in {PUBLISHED}; name their folder with CHORUS_TEST_DATA",
)
