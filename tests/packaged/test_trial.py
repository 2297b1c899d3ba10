"""What a packaged model has to keep to when it is tried out."""

import base64
import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.packaged.trial import Missing, alike, try_out


class Model:
    """Draws noise of a seed; `fault` says what it does wrong."""

    def __init__(self, fault: str = "") -> None:
        self.fault, self.calls = fault, 0

    def predict(self, frame: pd.DataFrame, params: dict[str, Any]) -> Any:
        self.calls += 1
        seed = {"forgets": self.calls, "repeats": 0}.get(self.fault, params["seed"])
        images = np.random.default_rng(seed).integers(0, 256, (len(frame), 4, 4, 1), dtype=np.uint8)
        if self.fault == "type":
            return images / 255
        if params["format"] == "array":
            return images
        return [self.png(image) for image in (255 - images if self.fault == "png" else images)]

    def png(self, image: np.ndarray) -> str:
        buffer = io.BytesIO()
        Image.fromarray(image[:, :, 0]).save(buffer, "PNG")
        return base64.b64encode(buffer.getvalue()).decode()


def test_a_good_model_draws_what_is_asked_for() -> None:
    images, seconds = try_out(Model(), 20, 2**63 - 1)
    assert images.shape == (20, 4, 4, 1)
    assert seconds > 0


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("type", "float64"),
        ("forgets", "other images for the same seed"),
        ("repeats", "the same images for every seed"),
        ("png", "as PNG files"),
    ],
)
def test_broken_promises_are_named(fault: str, words: str) -> None:
    with pytest.raises(SystemExit, match=words):
        try_out(Model(fault), 20, 5)


def test_rounding_is_no_difference() -> None:
    one = np.array([0, 255, 7], np.uint8)
    assert alike(one, np.array([1, 254, 7], np.uint8))
    assert not alike(one, np.array([2, 255, 7], np.uint8))


def test_nothing_of_an_installed_chorus_is_found() -> None:
    with pytest.raises(ImportError, match="carry itself"):
        Missing().find_spec("pipeline.files", None)
    assert Missing().find_spec("numpy", None) is None
