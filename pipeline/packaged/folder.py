"""Writing the package: what defines the model, by which versions are recognised, and MLflow's folder around it."""

import importlib.metadata
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.files import copy_snapshot, read_json, tree_hash, write_json
from pipeline.fusion.needs import networks_of
from pipeline.packaged.code import package_name, write_sampling_code

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature

SCHEMA = 1
REQUIREMENTS = ("mlflow", "torch", "numpy", "safetensors", "pandas", "pillow")


def write_content(chosen: Path, folder: Path) -> str:
    """Copy what defines the sampler of `models/chosen` to `folder` and return its hash: the version's identity.

    The folder gets `model.json` (schema, recipe, and the name of the code that samples, which says its content) and
    `members/ID/` with the networks that the recipe uses alone, and `critic` where discriminators judge together.
    """
    recipe = read_json(chosen / "recipe.json")["recipe"]
    write_json(folder / "model.json", {"schema": SCHEMA, "recipe": recipe, "code": package_name()})
    for name, networks in sorted(networks_of(recipe).items()):
        copy_snapshot(chosen / "members" / name, folder / "members" / name, networks)
    if (chosen / "critic").is_dir():
        shutil.copytree(chosen / "critic", folder / "critic")
    return tree_hash(folder)


def signature() -> "ModelSignature":
    """Return the model's signature: a required column `label`, the parameters `seed`, `first`, `format`.

    The column has no type, for MLflow's server would turn a label of 1.5 into 1; the model takes integers alone.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    return ModelSignature(
        inputs=Schema([ColSpec(AnyType(), "label", required=True)]),
        params=ParamSchema(
            [ParamSpec("seed", "long", 0), ParamSpec("first", "long", 0), ParamSpec("format", "string", "array")]
        ),
    )


def requirements() -> list[str]:
    """Return the exact versions of what the model imports, without local build labels such as `+cpu`."""
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in REQUIREMENTS]


def write_package(content: Path, path: Path, workspace: Path, model: "Model") -> None:
    """Write the MLflow model folder `path` around a content folder; `workspace` is an empty folder to copy through."""
    import mlflow.pyfunc
    import pandas as pd

    package = write_sampling_code(workspace)
    mlflow.pyfunc.save_model(
        path,
        mlflow_model=model,
        python_model=str(Path(__file__).with_name("model.py")),
        artifacts={"fused": str(content)},
        code_paths=[str(workspace / package)],
        model_config={"code": package, "content": tree_hash(content)},
        signature=signature(),
        input_example=(pd.DataFrame({"label": [-1]}), {"seed": 0, "first": 0, "format": "png"}),
        pip_requirements=requirements(),
    )
