"""The pipeline, the review and serving with MLflow and Prefect on PostgreSQL, and artefacts and DVC's remote on S3.

The tests below go through one checkout's life, one after another.
"""

import base64
import copy
import hashlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from mlflow import MlflowClient
from PIL import Image

from tests.endtoend.checkout import SMALL, Checkout
from tests.services import servers
from tests.services.conftest import BUCKET, LOG_IN, OF_MLFLOW, SECRETS, Backends, log_in

pytestmark = [pytest.mark.services, pytest.mark.timeout(1800)]
RETRAIN = (sys.executable, "-m", "flows.retrain")
REVIEW = (sys.executable, "-m", "flows.review")
PIPELINE = (sys.executable, "-m", "pipeline")
# What is in DVC's cache, and so in the remote.
SHARED = ("data/raw", "data/prepared", "data/reference", "models", "evaluation", "report/figures", "report/plots")


def reviewed(checkout: Checkout, *command: str) -> Any:
    return json.loads(checkout.run(*REVIEW, *command, "--json"))


def files_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that clones share, by path."""
    paths = [path for name in SHARED for path in (folder / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def prefect_records(backends: Backends, what: str) -> list[dict[str, Any]]:
    """Return all that Prefect's server keeps of a kind: flow_runs, task_runs, logs or artifacts."""
    rows: list[dict[str, Any]] = []
    while True:
        body = {"limit": 200, "offset": len(rows)}
        answer = requests.post(f"{backends.prefect}/{what}/filter", json=body, auth=("chorus", LOG_IN), timeout=60)
        answer.raise_for_status()
        if not answer.json():
            return rows
        rows += answer.json()


def test_a_run_fills_both_servers(checkout: Checkout, backends: Backends) -> None:
    printed = checkout.run(*RETRAIN, "--commit")
    assert "chorus version 1" in printed
    client = MlflowClient(backends.mlflow, registry_uri=backends.mlflow)
    experiment = client.get_experiment_by_name("chorus")
    assert experiment.artifact_location.startswith("mlflow-artifacts:/")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["chorus.kind"] for run in runs) == ["fused", "member", "member", "member", "pipeline"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert any(key.endswith("/MLmodel") for key in keys(backends, "mlflow/"))
    [flow_run] = prefect_records(backends, "flow_runs")
    assert flow_run["state_type"] == "COMPLETED"
    assert {"stages", "distances", "model-card", "candidate"} <= {
        row["key"] for row in prefect_records(backends, "artifacts")
    }
    assert not (checkout.folder / "mlflow.db").exists()
    assert not (checkout.folder / "mlartifacts").exists()
    assert not (checkout.folder / "mlruns").exists()


def test_a_second_run_has_nothing_to_do(checkout: Checkout, backends: Backends) -> None:
    printed = checkout.run(*RETRAIN)
    assert "nothing to do" in printed
    assert "the registry holds chorus version 1" in printed
    assert len(prefect_records(backends, "flow_runs")) == 1


def test_another_clone_gets_the_very_files(checkout: Checkout, backends: Backends, tmp_path: Path) -> None:
    checkout.run("dvc", "push")
    other = copy.copy(checkout)
    other.folder = tmp_path / "other"
    checkout.run("git", "clone", "-q", str(checkout.folder), str(other.folder))
    log_in(other, backends)
    other.run("dvc", "pull")
    assert files_of(other.folder) == files_of(checkout.folder)
    # What says when and where is not shared, so the two last stages run: on the same model, which has its version.
    printed = other.run(*RETRAIN)
    assert "registered  chorus version 1" in printed
    assert set(re.findall(r"^ *(\S+) +ran +[\d.]+", printed, re.MULTILINE)) == {"gate", "register"}
    assert [row["version"] for row in reviewed(checkout, "list")] == ["1"]


def test_a_reviewer_promotes_and_goes_back(checkout: Checkout) -> None:
    checkout.run(*REVIEW, "promote", "1", "--by", "Ada", "--why", "the first")
    families = {**SMALL["families"], "vae": {**SMALL["families"]["vae"], "lr": 0.002}}
    checkout.write_params(families=families)
    checkout.run(*RETRAIN)
    gate = json.loads((checkout.folder / "report/gate.json").read_text())
    assert gate["champion"]["version"] == "1"
    assert gate["comparison"]
    checkout.run(*REVIEW, "promote", "candidate", "--by", "Ada", "--why", "better")
    assert {tuple(row["aliases"]): row["version"] for row in reviewed(checkout, "list")} == {
        ("candidate", "champion"): "2",
        ("previous-champion",): "1",
    }
    assert "chorus version 1 is the champion now" in checkout.run(*REVIEW, "rollback", "--by", "Bo", "--why", "worse")
    shown = reviewed(checkout, "show", "champion")
    assert shown["version"] == "1"
    assert [move["by"] for move in shown["moves"]] == ["Ada", "Ada", "Bo"]


def test_a_damaged_object_is_not_promoted(checkout: Checkout, backends: Backends) -> None:
    client = backends.objects()
    source = MlflowClient(registry_uri=backends.mlflow).get_model_version_download_uri("chorus", "2")
    found = list(keys(backends, source.replace("mlflow-artifacts:/", "mlflow/")))
    weights = next(key for key in found if key.endswith("generator.safetensors"))
    whole = client.get_object(Bucket=BUCKET, Key=weights)["Body"].read()
    client.put_object(Bucket=BUCKET, Key=weights, Body=whole[:-1] + b"\x00")
    try:
        told = checkout.run(*REVIEW, "promote", "2", "--by", "Ada", "--why", "again", status=2)
    finally:
        client.put_object(Bucket=BUCKET, Key=weights, Body=whole)
    assert "its artefacts are damaged" in told
    assert reviewed(checkout, "show", "champion")["version"] == "1"


def keys(backends: Backends, prefix: str) -> Iterator[str]:
    """Yield the keys of the bucket that begin with a prefix."""
    for page in backends.objects().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
        yield from (entry["Key"] for entry in page.get("Contents", []))


def test_the_champion_is_sampled_and_served(checkout: Checkout, tmp_path: Path) -> None:
    sampled = images(checkout, "models:/chorus@champion", tmp_path / "images")
    port = servers.free_port()
    address = f"http://{servers.HOST}:{port}"
    options = ["--env-manager", "local", "--host", servers.HOST, "--port", str(port)]
    command = [sys.executable, "-m", "mlflow", "models", "serve", *options, "--model-uri", "models:/chorus@champion"]
    environment = {
        **checkout.environment,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    with servers.serving(command, tmp_path / "log", servers.answers(f"{address}/ping"), environment=environment):
        body = {"dataframe_records": [{"label": -1}] * 3, "params": {"seed": 7, "format": "png"}}
        answer = requests.post(f"{address}/invocations", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    served = [Image.open(io.BytesIO(base64.b64decode(text))) for text in answer.json()["predictions"]]
    assert np.array_equal(np.stack([np.asarray(image) for image in served]), sampled)


def images(checkout: Checkout, model: str, out: Path) -> np.ndarray:
    """Draw three images of a model by the command."""
    checkout.run(*PIPELINE, "sample", "--model", model, "--n", "3", "--seed", "7", "--out", str(out))
    return np.stack([np.asarray(Image.open(path)) for path in sorted(out.glob("*.png"))])


def test_a_client_may_write_to_database_and_bucket_itself(
    checkout: Checkout, backends: Backends, tmp_path: Path
) -> None:
    direct = copy.copy(checkout)
    store = backends.database.address("direct", "direct", OF_MLFLOW)
    direct.environment = {**checkout.environment, **backends.keys, "MLFLOW_TRACKING_URI": store}
    assert "set MLFLOW_DEFAULT_ARTIFACT_ROOT" in direct.run(*PIPELINE, "verify", status=2)
    direct.environment["MLFLOW_DEFAULT_ARTIFACT_ROOT"] = f"s3://{BUCKET}/direct"
    assert "the registry has lost chorus version 2" in direct.run(*PIPELINE, "verify")
    assert any(key.endswith("/MLmodel") for key in keys(backends, "direct/"))
    assert not (direct.folder / "mlruns").exists()
    # The version is the same one by its content, and draws the same images.
    there = images(direct, "models:/chorus@candidate", tmp_path / "direct")
    assert np.array_equal(there, images(checkout, "models:/chorus/2", tmp_path / "served"))


def test_secrets_are_nowhere(checkout: Checkout, backends: Backends) -> None:
    kept = {"what the commands said": "\n".join(checkout.said).encode()}
    known = checkout.folder / ".dvc" / "config.local"
    folders = (checkout.folder, Path(checkout.environment["PREFECT_HOME"]))
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path != known]
    kept |= {str(path): path.read_bytes() for path in files}
    for what in ("flow_runs", "task_runs", "logs", "artifacts"):
        rows = prefect_records(backends, what)
        assert rows
        kept[f"Prefect's {what}"] = json.dumps(rows).encode()
    for key in keys(backends, "mlflow/"):
        kept[key] = backends.objects().get_object(Bucket=BUCKET, Key=key)["Body"].read()
    kept["MLflow's database"] = backends.database.dump("mlflow")
    kept["MLflow's database, written to directly"] = backends.database.dump("direct")
    leaks = [
        f"{secret} in {name}" for name, content in kept.items() for secret in SECRETS if secret.encode() in content
    ]
    assert not leaks, "\n".join(leaks)
