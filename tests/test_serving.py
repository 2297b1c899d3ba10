"""A registered version behind MLflow's own server, and drawn from by `python -m pipeline sample`."""

import base64
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc
import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from pipeline import registry
from pipeline.__main__ import main
from pipeline.packaged.folder import signature
from pipeline.tracking import Tracker
from tests.factories_fused import CONFIG, write_fused
from tests.test_registry import register

README = (Path(__file__).parents[1] / "README.md").read_text()
MODEL = "models:/chorus@candidate"
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder with one registered version, whose members know two classes."""
    root = tmp_path_factory.mktemp("project")
    write_fused(root / "models" / "fused", config=replace(CONFIG, class_shares=(0.25, 0.75)))
    register(root)
    return root


@pytest.fixture(autouse=True)
def _in_project(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def loaded(root: Path) -> mlflow.pyfunc.PyFuncModel:
    return mlflow.pyfunc.load_model(str(stored(root)))


@pytest.fixture(scope="module")
def server(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, psutil.Process]]:
    """The command of the README on a free port: the port, and the process that was started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    [line] = re.findall(r"^mlflow models serve .*$", README, re.MULTILINE)
    command = ["bash", "-c", f"exec {line.replace('5001', str(port))}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MLFLOW"))} | {"PATH": PATH}
    environment |= {
        "MLFLOW_TRACKING_URI": f"sqlite:///{root / 'mlflow.db'}",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    log = tmp_path_factory.mktemp("log") / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=log.parent, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        end = time.monotonic() + 200
        while not answers(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield port, psutil.Process(process.pid)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def ask(port: int, body: object, kind: str = "application/json") -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/invocations", data, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)["predictions"]
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_serves_what_the_loaded_model_draws(
    server: tuple[int, psutil.Process], loaded: mlflow.pyfunc.PyFuncModel
) -> None:
    port, _ = server
    labels, params = [1, -1, 0, 1], {"seed": 7, "first": 300}
    expected = loaded.predict(pd.DataFrame({"label": labels}), params=params)
    records = [{"label": label} for label in labels]
    assert ask(port, {"dataframe_records": records, "params": params}) == (200, expected.tolist())
    assert ask(port, {"inputs": {"label": labels}, "params": params}) == (200, expected.tolist())
    status, texts = ask(port, {"dataframe_records": records, "params": {**params, "format": "png"}})
    decoded = [np.atleast_3d(np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))) for text in texts]
    assert status == 200
    assert np.array_equal(np.stack(decoded), expected)
    # Without a seed it is 0; another one gives other images, another beginning the same ones further on.
    plain = loaded.predict(pd.DataFrame({"label": [-1] * 4}), params={"seed": 0})
    assert ask(port, {"dataframe_records": [{"label": -1}] * 4}) == (200, plain.tolist())
    assert ask(port, {"dataframe_records": [{"label": -1}], "params": {"first": 3}}) == (200, plain[3:].tolist())
    assert not np.array_equal(plain, expected)


def test_the_readmes_request(server: tuple[int, psutil.Process], tmp_path: Path) -> None:
    [block] = re.findall(r"^curl .*?(?=^```)", README, re.MULTILINE | re.DOTALL)
    script = block.replace("5001", str(server[0])).replace("curl", "curl --silent --fail", 1)
    subprocess.run(["bash", "-ec", script], cwd=tmp_path, env={"PATH": PATH}, check=True, timeout=60)
    [file] = tmp_path.iterdir()
    assert Image.open(file).size == (8, 8)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"dataframe_records": [{"label": 4}]}, "label 4 does not exist: this model knows the classes 0 to 1"),
        ({"dataframe_records": [{"label": 0}, {"label": -2}]}, "label -2 does not exist"),
        ({"dataframe_records": [{"label": 1.5}]}, "label 1.5 is no integer"),
        ({"dataframe_records": [{"label": True}]}, "label True is no integer"),
        ({"dataframe_records": [{"label": "cat"}]}, "label 'cat' is no integer"),
        ({"dataframe_records": [{"label": None}]}, "label None is no integer"),
        ({"dataframe_records": [{"label": 1}, {}]}, "label nan is no integer"),
        ({"dataframe_records": [{"label": [1]}]}, "label [1] is no integer"),
        ({"dataframe_records": [{"label": 10**20}]}, "is no integer"),
        ({"dataframe_records": [{"class": 1}]}, "missing inputs ['label']"),
        ({"dataframe_records": []}, "missing inputs ['label']"),
        ({"dataframe_records": {"label": 1}}, "must be a list of records"),
        ({"dataframe_records": [{"label": 1}], "params": {"seed": "x"}}, "'seed'"),
        ({"dataframe_records": [{"label": 1}], "params": {"seed": 1.5}}, "'seed'"),
        ({"dataframe_records": [{"label": 1}], "params": {"first": -1}}, "first is -1; images have numbers from 0"),
        ({"dataframe_records": [{"label": 1}], "params": {"format": "tiff"}}, "it can be 'array' or 'png'"),
        ({"dataframe_records": [{"label": 1}], "params": [7]}, "must be a dictionary"),
        ({}, "exactly one of the input fields"),
        ([1, 2], "Received a list"),
        (b"{nope", "valid JSON"),
    ],
)
def test_wrong_input_is_the_clients_fault_and_says_why(
    server: tuple[int, psutil.Process], body: object, words: str
) -> None:
    status, message = ask(server[0], body)
    assert status == 400
    assert words in (message if isinstance(body, bytes) else json.loads(message)["message"])


def test_requests_at_the_same_time_do_not_mix(server: tuple[int, psutil.Process]) -> None:
    bodies = [{"dataframe_records": [{"label": -1}] * 50, "params": {"seed": seed}} for seed in range(8)]
    alone = [ask(server[0], body) for body in bodies]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda body: ask(server[0], body), bodies)) == alone


def test_another_type_of_content_is_refused(server: tuple[int, psutil.Process]) -> None:
    status, message = ask(server[0], {"dataframe_records": [{"label": 1}]}, "application/x-www-form-urlencoded")
    assert status == 415
    assert "application/json" in message


def test_listens_on_the_loopback_alone(server: tuple[int, psutil.Process]) -> None:
    _, started = server
    processes = [started, *started.children(recursive=True)]
    addresses = {c.laddr.ip for p in processes for c in p.net_connections() if c.status == psutil.CONN_LISTEN}
    assert addresses == {"127.0.0.1"}


def sample(model: str, out: Path, n: int = 5, seed: int = 0) -> int:
    return main(["sample", "--model", model, "--n", str(n), "--out", str(out), "--seed", str(seed)])


def images_in(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))])


def stored(root: Path) -> Path:
    return next((root / "mlartifacts").rglob("MLmodel")).parent


def test_sample_draws_what_the_loaded_model_draws(
    root: Path, loaded: mlflow.pyfunc.PyFuncModel, tmp_path: Path
) -> None:
    expected = loaded.predict(pd.DataFrame({"label": [-1] * 300}), params={"seed": 7})[:, :, :, 0]
    copy = tmp_path / "version"
    shutil.copytree(stored(root), copy)
    for number, model in enumerate([MODEL, "models:/chorus/1", str(copy), "models/fused"]):
        assert sample(model, tmp_path / str(number), 300, seed=7) == 0
        # The batches are others, which may change an image's last bit.
        assert np.abs(images_in(tmp_path / str(number)).astype(int) - expected).max() <= 1
    # One draw, wherever its model lies: each of them could have gone on with another's.
    assert len({(tmp_path / str(number) / "sample.json").read_text() for number in range(4)}) == 1


def test_sample_says_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for model, words in [
        ("models:/chorus@champion", "champion"),
        ("models:/chorus/9", "cannot be fetched"),
        ("models:/other@candidate", "other"),
        ("models:/chorus", "names no version"),
        ("models:/chorus/../1", "names no version"),
    ]:
        assert sample(model, tmp_path / "out") == 2
        assert words in capsys.readouterr().err


def test_a_registry_that_is_away_is_no_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert sample(MODEL, tmp_path / "out") == 75
    assert "cannot be fetched" in capsys.readouterr().err


def overwrite(pattern: str, content: bytes) -> Callable[[Path], None]:
    def damage(package: Path) -> None:
        next(package.rglob(pattern)).write_bytes(content)

    return damage


DAMAGE: dict[str, Callable[[Path], object]] = {
    "weights": overwrite("generator.safetensors", b"\x80\x04K\x01."),
    "code": overwrite("samplers.py", b"raise SystemExit('ran')"),
    "entry": overwrite("model.py", b"raise SystemExit('ran')"),
    "loader": overwrite("MLmodel", b"flavors: {python_function: {loader_module: os}}"),
    "added": lambda package: (package / "code" / "sitecustomize.py").write_text("raise SystemExit('ran')"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_nothing_of_an_altered_version_is_used(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    package, kept = stored(root), tmp_path / "kept"
    shutil.copytree(package, kept)
    try:
        DAMAGE[damage](package)
        assert sample(MODEL, tmp_path / "out") == 2
        assert re.search(
            "chorus version 1 is not used: its (artefacts are damaged|package was altered)", capsys.readouterr().err
        )
        [version] = Tracker(root).client.search_model_versions("name = 'chorus'")
        assert registry.find_version(Tracker(root), "chorus", version.tags[registry.CONTENT]) is None
    finally:
        shutil.rmtree(package)
        shutil.copytree(kept, package)


def test_bytecode_in_the_store_is_not_run(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "version"
    shutil.copytree(stored(root), copy)
    cache = next(copy.rglob("samplers.py")).parent / "__pycache__"
    cache.mkdir(exist_ok=True)
    (cache / f"samplers.{sys.implementation.cache_tag}.pyc").write_bytes(b"other code")
    (cache / "__pycache__").mkdir()
    [version] = Tracker(root).client.search_model_versions("name = 'chorus'")
    assert registry.fault_of(copy, version.tags) is None
    assert not list(copy.rglob("*.pyc"))
    (cache.parent.parent / "__pycache__").write_bytes(b"no folder")
    assert "was altered" in str(registry.fault_of(copy, version.tags))


class Harmful(mlflow.pyfunc.PythonModel):
    """Tells when it has been unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("unpickled",)

    def predict(self, context: Any, model_input: pd.DataFrame) -> pd.DataFrame:
        return model_input


@pytest.mark.parametrize(("ours", "words"), [(True, "pickle is disallowed"), (False, "packed by another program")])
def test_a_pickled_model_is_not_unpickled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ours: bool, words: str
) -> None:
    named = {"signature": signature()} if ours else {}
    mlflow.pyfunc.save_model(tmp_path / "model", python_model=Harmful(), pip_requirements=["mlflow"], **named)
    assert sample(str(tmp_path / "model"), tmp_path / "out") == 2
    assert words in capsys.readouterr().err
    assert not Path("unpickled").exists()


def test_altered_weights_do_not_load_anywhere(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "version"
    shutil.copytree(stored(root), copy)
    weights = next(copy.rglob("generator.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    with pytest.raises(mlflow.exceptions.MlflowException, match="not those that were packed"):
        mlflow.pyfunc.load_model(str(copy))
