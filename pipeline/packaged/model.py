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
LAST = 2**40  # images of a seed's stream that can be asked for: samplers multiply an image's number by their draws


def png_text(image: np.ndarray) -> str:
    """Return a uint8 H×W×C image as the base64 text of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def integers(labels: pd.Series) -> torch.Tensor:
    """Return a column as int64; raises `MlflowException` for what is no integer."""
    for label in labels.tolist():
        number = isinstance(label, int | float) and not isinstance(label, bool)
        if not number or label != label or label % 1 or abs(label) >= 2**63:
            raise MlflowException.invalid_parameter_value(
                f"label {label!r} is no integer: the column 'label' has one for each image, a class or -1 for any"
            )
    return torch.tensor([int(label) for label in labels], dtype=torch.int64)


class FusedModel(PythonModel):
    """Draws images from the fused sampler, one for each row of the input."""

    def load_context(self, context: Any) -> None:
        """Build the sampler from the version's recipe and weights.

        Raises `MlflowException` for a newer schema, and for files that are not those that were packed.
        """
        folder = Path(context.artifacts["fused"])
        model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        if model["schema"] > SCHEMA:
            raise MlflowException.invalid_parameter_value(
                f"this model has schema {model['schema']}, its loader reads up to {SCHEMA}: it was packed by a newer "
                "Chorus; pack it again, or load the version as it was registered"
            )
        code = context.model_config["code"]
        self.errors = importlib.import_module(f"{code}.errors")
        if importlib.import_module(f"{code}.files").tree_hash(folder) != context.model_config["content"]:
            raise MlflowException.invalid_parameter_value(
                f"the recipe or the weights in {folder} are not those that were packed: damaged or altered"
            )
        recipes = importlib.import_module(f"{code}.recipes")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.critic, self.rule = None, ""
        if (folder / "critic").is_dir():
            self.critic, self.rule = recipes.load_critic(folder / "critic", device)
        self.sampler = recipes.load_sampler(model["recipe"], (folder / "members").joinpath, device)

    def judge(self, images: np.ndarray) -> np.ndarray:
        """Return how real images look to the members' discriminators together: float32 N in [0, 1], 1 is real.

        images: uint8 N×H×W×C, of the size that `predict` draws. Reached as
        `mlflow.pyfunc.load_model(...).unwrap_python_model().judge(images)`. Raises `MlflowException` where no member
        has a discriminator, and for arrays of another type or shape.
        """
        if self.critic is None:
            raise MlflowException.invalid_parameter_value("no member of this model has a discriminator to judge with")
        channels, height, width = next(iter(self.sampler.sample(1, seed=0))).shape[1:]
        shape = (height, width, channels)
        if images.dtype != np.uint8 or images.shape[1:] != shape:
            wanted = "×".join(map(str, ("N", *shape)))
            raise MlflowException.invalid_parameter_value(
                f"images are {images.dtype} of shape {images.shape}; they have to be uint8, {wanted}"
            )
        shown = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        scores: np.ndarray = self.critic.scores(shown, self.rule).numpy()
        return scores

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> np.ndarray | list[str]:
        """Return one image for each row: uint8 N×H×W×C, or N texts where `format` is `png`.

        model_input: column `label`, integers, -1 = any class. params: `seed`, `first` (row i is image first + i of the
        seed's endless stream, which depends on the seed, its number and the row's label alone) and `format` (`array`,
        or `png`: PNG files as base64 text). Raises `MlflowException` for a label that the members do not know, an
        unknown format and a number that no image has.
        """
        wanted = {"seed": 0, "first": 0, "format": "array", **(params or {})}
        if wanted["format"] not in FORMATS:
            raise MlflowException.invalid_parameter_value(
                f"format is {wanted['format']!r}; it can be {' or '.join(map(repr, FORMATS))}"
            )
        seed, first = int(wanted["seed"]), int(wanted["first"])
        if not 0 <= first <= LAST - len(model_input):
            raise MlflowException.invalid_parameter_value(f"first is {first}; images have numbers from 0 to {LAST - 1}")
        if "label" not in model_input:
            raise MlflowException.invalid_parameter_value("the input needs a column 'label' of integers, -1 = any")
        labels = integers(model_input["label"])
        try:
            # No row still gives an array of the right shape: nothing of one image.
            asked = labels if len(labels) else torch.tensor([-1])
            batches = list(self.sampler.sample(len(asked), seed=seed, labels=asked, first=first))
        except self.errors.ChorusError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        images = torch.cat(batches)[: len(labels)].permute(0, 2, 3, 1).contiguous().numpy()
        return images if wanted["format"] == "array" else [png_text(image) for image in images]


set_model(FusedModel())
