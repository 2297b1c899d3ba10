"""Versions of the fused model: packed, registered, found again, and loaded where Chorus is not installed."""

import ast
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipeline import registry
from pipeline.errors import ChorusError, PassingError
from pipeline.exits import BAD_INPUT, CAN_PASS, status_of
from pipeline.files import read_json
from pipeline.fusion.samplers import draw
from pipeline.packaged import code, folder
from pipeline.recipes import load_sampler
from pipeline.tracking import Tracker
from tests.factories_fused import CONFIG, write_critic, write_fused, write_latents, write_moe, write_rejection

# -S leaves out the .pth file by which an editable install makes `pipeline` importable; only libraries are put back.
ISOLATED = f"""
import sys
sys.path.append({sysconfig.get_paths()["purelib"]!r})
import importlib.util, json, os
assert importlib.util.find_spec("pipeline") is None
import mlflow, pandas as pd
mlflow.set_tracking_uri(os.environ["STORE"])
model = mlflow.pyfunc.load_model("models:/chorus@candidate")
"""


def in_isolation(script: str, root: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script after loading the candidate in a process that knows nothing of this checkout."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MLFLOW"))}
    environment |= {"STORE": f"sqlite:///{root / 'mlflow.db'}", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    command = [sys.executable, "-I", "-S", "-c", ISOLATED + script]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, registry.Version]:
    """A project's folder with one registered version, the candidate."""
    root = tmp_path_factory.mktemp("project")
    write_fused(root / "models" / "fused")
    write_critic(root / "models" / "fused" / "critic")
    return root, register(root)


def register(root: Path) -> registry.Version:
    """Register `models/fused` of a project's folder as the candidate."""
    tracker = Tracker(root)
    with (
        registry.packed(root / "models" / "fused") as (content, identity),
        tracker.child("fused", "fused model", key=identity) as run,
    ):
        version = registry.create_version(tracker, run, "chorus", content, identity, {"chorus.strategy": "w"}, "d")
    registry.set_candidate(tracker, version)
    return version


def test_version_is_found_by_its_content(registered: tuple[Path, registry.Version]) -> None:
    root, version = registered
    tracker = Tracker(root)
    assert registry.find_version(tracker, "chorus", version.content) == version
    assert registry.find_version(tracker, "chorus", "0" * 64) is None
    assert registry.find_version(tracker, "other", version.content) is None
    assert registry.alias_number(tracker, "chorus") == version.number
    assert registry.alias_number(tracker, "other") is None


def test_a_registry_that_does_not_answer_is_not_one_without_the_alias(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = Tracker(tmp_path)
    assert registry.alias_number(tracker, "chorus", "champion") is None
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("DROP TABLE registered_models")
    with pytest.raises(ChorusError, match="does not tell where 'champion' of 'chorus' points") as raised:
        registry.alias_number(tracker, "chorus", "champion")
    assert status_of(raised.value) == BAD_INPUT

    def away(*arguments: object) -> None:
        raise MlflowException("connection refused")

    monkeypatch.setattr(MlflowClient, "get_model_version_by_alias", away)
    with pytest.raises(PassingError, match="does not tell where 'champion' of 'chorus' points: connection refused"):
        registry.alias_number(tracker, "chorus", "champion")


def in_a_store_that_is_away(tracker: Tracker, model: str) -> str:
    """Register a version whose artefacts lie where nobody answers; return its number."""
    address = "http://127.0.0.1:9/api/2.0/mlflow-artifacts/artifacts/x"
    return str(tracker.client.create_model_version(model, address).version)


def test_artefacts_are_lost_only_where_the_store_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracker = Tracker(tmp_path)
    tracker.client.create_registered_model("chorus")
    (tmp_path / "empty").mkdir()
    for source in ("empty", "gone"):
        version = tracker.client.create_model_version("chorus", (tmp_path / source).as_uri())
        found = registry.fetch_whole(tracker, "chorus", str(version.version), tmp_path / "to")
        assert found == (None, "its artefacts are lost")
    assert registry.fetch(tracker, "chorus", "9", tmp_path / "to") is None
    with pytest.raises(MlflowException) as raised:
        registry.fetch_whole(tracker, "chorus", in_a_store_that_is_away(tracker, "chorus"), tmp_path / "to")
    assert status_of(raised.value) == CAN_PASS


def test_loads_and_samples_in_a_foreign_process(registered: tuple[Path, registry.Version], tmp_path: Path) -> None:
    root, _ = registered
    # A package of the user's that bears our name must do no harm.
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").write_text("raise ImportError('not yours')")
    script = f"""
sys.path.append({str(tmp_path)!r})
import base64, io, numpy as np
from PIL import Image
from mlflow.exceptions import MlflowException
rows = pd.DataFrame({{"label": [-1] * 5}})
arrays = model.predict(rows, params={{"seed": 7}})
pngs = model.predict(rows, params={{"seed": 7, "format": "png"}})
decoded = [np.atleast_3d(np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))) for text in pngs]
assert (np.stack(decoded) == arrays).all()
assert (model.predict(rows) != arrays).any()
assert model.predict(rows.iloc[:0]).shape == (0, 8, 8, 1)
judge = model.unwrap_python_model().judge
scores = judge(arrays)
assert scores.shape == (5,) and len(set(scores.tolist())) == 5 and ((scores > 0) & (scores < 1)).all()
for wrong in (arrays / 255, arrays[:, :4]):
    try:
        judge(wrong)
    except MlflowException as error:
        assert "uint8, N×8×8×1" in str(error)
    else:
        raise AssertionError
refused = []
for frame, params in [
    (pd.DataFrame({{"label": [3]}}), {{}}),
    (pd.DataFrame({{"label": [-2]}}), {{}}),
    (pd.DataFrame({{"label": ["x"]}}), {{}}),
    (pd.DataFrame({{"class": [1]}}), {{}}),
    (rows, {{"format": "tiff"}}),
    (rows, {{"seed": "x"}}),
]:
    try:
        model.predict(frame, params=params)
        refused.append("accepted")
    except MlflowException as error:
        refused.append(str(error))
assert not any(name == "pipeline" or name.startswith("pipeline.") for name in sys.modules)
print(json.dumps([arrays.tolist(), str(arrays.dtype), refused]))
"""
    done = in_isolation(script, root, tmp_path)
    assert done.returncode == 0, done.stderr
    images, dtype, refused = json.loads(done.stdout.splitlines()[-1])
    recipe = read_json(root / "models" / "fused" / "recipe.json")["recipe"]
    here = draw(load_sampler(recipe, (root / "models" / "fused" / "members").joinpath), 5, seed=7)
    assert dtype == "uint8"
    assert torch.equal(torch.tensor(images, dtype=torch.uint8), here.permute(0, 2, 3, 1))
    for message, words in zip(
        refused,
        ["use label -1", "-2 does not exist", "label", "missing inputs", "'array' or 'png'", "seed"],
        strict=True,
    ):
        assert words in message


def test_draws_the_classes_that_rows_ask_for(tmp_path: Path) -> None:
    fused = tmp_path / "models" / "fused"
    write_fused(fused, config=replace(CONFIG, class_shares=(0.25, 0.75)))
    register(tmp_path)
    script = """
from mlflow.exceptions import MlflowException
images = model.predict(pd.DataFrame({"label": [1, -1, 0, 1]}), params={"seed": 7})
try:
    model.predict(pd.DataFrame({"label": [0, 2]}))
    refused = "accepted"
except MlflowException as error:
    refused = str(error)
print(json.dumps([images.tolist(), refused]))
"""
    done = in_isolation(script, tmp_path, tmp_path)
    assert done.returncode == 0, done.stderr
    images, refused = json.loads(done.stdout.splitlines()[-1])
    sampler = load_sampler(read_json(fused / "recipe.json")["recipe"], (fused / "members").joinpath)
    here = draw(sampler, 4, seed=7, labels=torch.tensor([1, -1, 0, 1]))
    assert torch.equal(torch.tensor(images, dtype=torch.uint8), here.permute(0, 2, 3, 1))
    assert not torch.equal(here[0], draw(sampler, 1, seed=7, labels=torch.tensor([0]))[0])
    assert "label 2 does not exist: this model knows the classes 0 to 1" in refused


@pytest.mark.parametrize("write", [write_rejection, write_latents, write_moe])
def test_what_looks_at_its_images_draws_the_same_in_a_foreign_process(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    fused = tmp_path / "models" / "fused"
    write(fused)
    register(tmp_path)
    recipe = read_json(fused / "recipe.json")["recipe"]
    here = draw(load_sampler(recipe, (fused / "members").joinpath), 5, seed=7)
    mixture = recipe.get("source", recipe | {"kind": "mixture"})
    assert not torch.equal(here, draw(load_sampler(mixture, (fused / "members").joinpath), 5, seed=7))
    shutil.rmtree(fused)  # nothing of the checkout is left when the version is asked
    script = """
images = model.predict(pd.DataFrame({"label": [-1] * 5}), params={"seed": 7})
assert not any(name == "torch_fidelity" or name.startswith("torchvision") for name in sys.modules)
print(json.dumps(images.tolist()))
"""
    done = in_isolation(script, tmp_path, tmp_path)
    assert done.returncode == 0, done.stderr
    images = torch.tensor(json.loads(done.stdout.splitlines()[-1]), dtype=torch.uint8)
    assert torch.equal(images, here.permute(0, 2, 3, 1))


def test_nothing_is_pickled_and_requirements_are_exact(registered: tuple[Path, registry.Version]) -> None:
    root, _ = registered
    files = [path for path in (root / "mlartifacts").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {path.suffix for path in files} <= {"", ".json", ".yaml", ".txt", ".py", ".safetensors"}
    # The sampler needs no discriminator; the critic has its own.
    judges = [path for path in files if path.name == "discriminator.safetensors"]
    assert all("critic" in path.parts for path in judges)
    assert len(judges) == 1
    requirements = next(path for path in files if path.name == "requirements.txt").read_text().split()
    assert {line.partition("==")[0] for line in requirements} == set(folder.REQUIREMENTS)
    assert all("==" in line and "+" not in line for line in requirements)


def test_newer_schema_is_refused(registered: tuple[Path, registry.Version], tmp_path: Path) -> None:
    root, _ = registered
    stored = next((root / "mlartifacts").rglob("MLmodel")).parent
    copy = tmp_path / "model"
    shutil.copytree(stored, copy)
    model = copy / "artifacts" / "fused" / "model.json"
    model.write_text(model.read_text().replace('"schema": 1', '"schema": 2'))
    script = f"mlflow.pyfunc.load_model({str(copy)!r})"
    done = in_isolation(script, root, tmp_path)
    assert done.returncode != 0
    assert "schema 2" in done.stderr
    assert "newer" in done.stderr


@pytest.mark.parametrize("damage", ["changed", "lost"])
def test_version_with_damaged_artefacts_is_not_found(
    registered: tuple[Path, registry.Version], tmp_path: Path, damage: str
) -> None:
    root, version = registered
    stored = next((root / "mlartifacts").rglob("MLmodel")).parent
    weights = next(stored.rglob("generator.safetensors"))
    kept = weights.read_bytes()
    if damage == "changed":
        weights.write_bytes(kept[:-1] + b"\x00")
    else:
        weights.unlink()
    assert registry.find_version(Tracker(root), "chorus", version.content) is None
    weights.write_bytes(kept)
    assert registry.find_version(Tracker(root), "chorus", version.content) == version


def test_packed_code_imports_libraries_alone(tmp_path: Path) -> None:
    package = code.write_sampling_code(tmp_path)
    allowed = {package, "torch", "numpy", "safetensors"}
    for file in (tmp_path / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for top in {name.split(".")[0] for name in names}:
                assert top in allowed or top in sys.stdlib_module_names, f"{file.name} imports {top}"
    assert (tmp_path / package / "models" / "dcgan.py").exists()


def test_schema_of_writer_and_reader_agree() -> None:
    tree = ast.parse((Path(folder.__file__).parent / "model.py").read_text())
    values = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "SCHEMA"]
    assert [ast.literal_eval(value) for value in values] == [folder.SCHEMA]


def test_content_is_what_defines_the_sampler(tmp_path: Path) -> None:
    def identity(name: str) -> str:
        with registry.packed(tmp_path / name) as (_, found):
            return found

    write_fused(tmp_path / "a")
    write_fused(tmp_path / "b")
    (tmp_path / "b" / "strategies.json").write_text("{}")
    write_fused(tmp_path / "weights", weights=(0.5, 0.5))
    write_fused(tmp_path / "networks", seed=1)
    assert identity("a") == identity("b")
    assert len({identity(name) for name in ("a", "weights", "networks")}) == 3


def test_missing_weights_are_named(tmp_path: Path) -> None:
    write_fused(tmp_path)
    (tmp_path / "members" / "mlp" / "r1" / "000001000" / "generator.safetensors").unlink()
    with (
        pytest.raises(ChorusError, match=r"mlp/r1/000001000/generator\.safetensors is missing"),
        registry.packed(tmp_path),
    ):
        pass
