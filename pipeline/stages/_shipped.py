"""Opening a model to draw from: a registered version, its folder, or `models/chosen` before it is registered."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline import registry
from pipeline.errors import ChorusError, PassingError
from pipeline.exits import CAN_PASS, NO_ROOM, lasts, status_of
from pipeline.files import read_json, tree_hash
from pipeline.recipes import load_sampler
from pipeline.tracking import quieten, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

REGISTERED = "models:/"
Draw = Callable[[int, int, int, int], np.ndarray]


@dataclass(frozen=True)
class Shipped:
    """A model that images can be drawn from.

    name: for people. content: hash of what defines the sampler, the same wherever it lies. draw: maps (number of the
    first image, how many, seed, label or -1) to uint8 N×H×W×C; raises `ChorusError` for a label that does not exist.
    """

    name: str
    content: str
    draw: Draw


@contextmanager
def opened(address: str, root: Path) -> Iterator[Shipped]:
    """Open `models:/NAME@ALIAS`, `models:/NAME/VERSION`, the folder of a packaged model, or one with a recipe.

    root: the folder whose registry is asked where `MLFLOW_TRACKING_URI` names none. A version's files are compared with
    the hashes that were registered before any of them is used. Raises `ChorusError` for what is not there, was altered,
    or is no model of Chorus, `PassingError` where the registry does not answer.
    """
    if address.startswith(REGISTERED):
        with tempfile.TemporaryDirectory(prefix="chorus-") as temporary:
            yield _registered(address, root, Path(temporary))
        return
    folder = Path(address).expanduser()
    if (folder / "MLmodel").is_file():
        yield _packaged(folder, str(folder))
    elif (folder / "recipe.json").is_file():
        yield _chosen(folder)
    else:
        raise ChorusError(
            f"{address} is no model: name models:/NAME@ALIAS, models:/NAME/VERSION, a folder with an MLmodel, "
            "or models/chosen"
        )


def _registered(address: str, root: Path, temporary: Path) -> Shipped:
    quieten()
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    if "MLFLOW_TRACKING_URI" not in os.environ and not (root / "mlflow.db").is_file():
        raise ChorusError(
            f"{root} has no registry: run in the project's folder, set MLFLOW_TRACKING_URI, or name a model's folder"
        )
    uri = tracking_uri(root)
    client = MlflowClient(uri, registry_uri=uri)
    try:
        version = _version(client, address)
        source = client.get_model_version_download_uri(version.name, version.version)
        folder = Path(download_artifacts(artifact_uri=source, dst_path=str(temporary), tracking_uri=uri))
    except (MlflowException, OSError) as error:
        if (status := status_of(error)) == NO_ROOM:
            raise
        kind = PassingError if status == CAN_PASS else ChorusError
        raise kind(f"{address} cannot be fetched: {error}") from None
    if fault := registry.fault_of(folder, version.tags):
        raise ChorusError(f"{version.name} version {version.version} is not used: {fault}")
    return _packaged(folder, f"{version.name} version {version.version}")


def _version(client: "MlflowClient", address: str) -> "ModelVersion":
    name, at, alias = address.removeprefix(REGISTERED).partition("@")
    if at:
        return client.get_model_version_by_alias(name, alias)
    name, _, number = name.partition("/")
    if not number.isdecimal():
        raise ChorusError(f"{address} names no version: write models:/NAME@ALIAS or models:/NAME/VERSION")
    return client.get_model_version(name, number)


def _packaged(folder: Path, name: str) -> Shipped:
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    try:
        schema = Model.load(str(folder)).get_params_schema()
        if "first" not in {param.name for param in (schema.params if schema else [])}:
            raise ChorusError("it was packed by another program, or by an older Chorus: `dvc repro` registers it anew")
        model = mlflow.pyfunc.load_model(str(folder))
    except Exception as error:  # what a damaged or foreign package raises is not bounded
        raise ChorusError(f"{name} does not load: {error}") from None

    def draw(first: int, count: int, seed: int, label: int) -> np.ndarray:
        rows = pd.DataFrame({"label": [label] * count})
        try:
            images: np.ndarray = model.predict(rows, params={"seed": seed, "first": first})
        except MlflowException as error:
            raise ChorusError(error.message) from None
        return images

    return Shipped(name, tree_hash(folder / "artifacts" / "fused"), draw)


def _chosen(folder: Path) -> Shipped:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        recipe: dict[str, Any] = read_json(folder / "recipe.json")["recipe"]
        with registry.packed(folder) as (_, content):
            pass
        sampler = load_sampler(recipe, (folder / "members").joinpath, device)
    except Exception as error:  # what a foreign recipe raises is not bounded
        if isinstance(error, ChorusError) or not lasts(error):
            raise
        raise ChorusError(
            f"{folder / 'recipe.json'} is no recipe of Chorus ({error!r}): name models/chosen, or another folder"
        ) from None

    def draw(first: int, count: int, seed: int, label: int) -> np.ndarray:
        batches = list(sampler.sample(count, seed=seed, labels=torch.full((count,), label), first=first))
        return torch.cat(batches).permute(0, 2, 3, 1).contiguous().numpy()

    return Shipped(str(folder), content, draw)
