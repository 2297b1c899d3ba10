"""The registered model as MLflow runs it: a "model from code", copied into every version.

A version carries the code that it samples with, under a package name of its own (see `pipeline.packaged.code`). So it
loads where Chorus is not installed, beside a foreign package called `pipeline`, and beside versions with other code.
"""

import base64
import importlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from PIL import Image

SCHEMA = 1
FORMATS = ("array", "png")


def png_text(image: np.ndarray) -> str:
    """Return a uint8 H×W×C image as the base64 text of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


class FusedModel(PythonModel):
    """Draws images from the fused sampler, one for each row of the input."""

    def load_context(self, context: Any) -> None:
        """Build the sampler from the version's recipe and weights; raises `MlflowException` for a newer schema."""
        folder = Path(context.artifacts["fused"])
        model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        if model["schema"] > SCHEMA:
            raise MlflowException.invalid_parameter_value(
                f"this model has schema {model['schema']}, its loader reads up to {SCHEMA}: it was packed by a newer "
                "Chorus; pack it again, or load the version as it was registered"
            )
        code = context.model_config["code"]
        self.errors = importlib.import_module(f"{code}.errors")
        recipes = importlib.import_module(f"{code}.recipes")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.sampler = recipes.load_sampler(model["recipe"], (folder / "members").joinpath, device)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> np.ndarray | list[str]:
        """Return one image for each row: uint8 N×H×W×C, or N texts where `format` is `png`.

        model_input: column `label`, integers, -1 = any class. params: `seed` (row i's image depends on the seed, on i
        and on the row's label alone) and `format` (`array`, or `png`: PNG files as base64 text).
        Raises `MlflowException` for a label that the members do not know and for an unknown format.
        """
        wanted = {"seed": 0, "format": "array", **(params or {})}
        if wanted["format"] not in FORMATS:
            raise MlflowException.invalid_parameter_value(
                f"format is {wanted['format']!r}; it can be {' or '.join(map(repr, FORMATS))}"
            )
        if "label" not in model_input:
            raise MlflowException.invalid_parameter_value("the input needs a column 'label' of integers, -1 = any")
        labels = torch.from_numpy(model_input["label"].to_numpy(dtype=np.int64, copy=True))
        try:
            # No row still gives an array of the right shape: nothing of one image.
            asked = labels if len(labels) else torch.tensor([-1])
            batches = list(self.sampler.sample(len(asked), seed=int(wanted["seed"]), labels=asked))
        except self.errors.ChorusError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        images = torch.cat(batches)[: len(labels)].permute(0, 2, 3, 1).contiguous().numpy()
        return images if wanted["format"] == "array" else [png_text(image) for image in images]


set_model(FusedModel())
