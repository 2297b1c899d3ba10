"""The train stage as a process of its own: what it writes, and that being ended at any moment changes no byte."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from pipeline.files import tree_hash, write_json
from pipeline.models._base import ModelConfig
from pipeline.params import Family
from pipeline.project import Project
from pipeline.stages._job import Unit
from pipeline.stages.train import training_key
from pipeline.tracking import Tracker
from pipeline.training.loop import Data
from pipeline.training.streams import Streams
from tests.factories import write_prepared

PARAMS = """
seed: 3
data: {source: digits, watch: unused, size: 8}
families:
  gan: {architecture: dcgan, kimg: 6, batch: 32, width: 8, latent: 8, replicas: 2, snapshots: 2, ema_profiles: true}
  vae: {architecture: vae, kimg: 1, batch: 32, width: 8, latent: 8}
"""
REPOSITORY = Path(__file__).parents[2]
END = 6016  # images: 188 batches of 32


def start(root: Path, family: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "CHORUS_CHECKPOINT_SECONDS": "0",
        "MLFLOW_TRACKING_URI": f"sqlite:///{root / 'mlflow.db'}",
    }
    command = [sys.executable, "-m", "pipeline", "train", family]
    return subprocess.Popen(
        command, cwd=root, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def train(root: Path, family: str) -> str:
    process = start(root, family)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    return output


def end_at(root: Path, member: str, nimg: int, number: signal.Signals) -> tuple[int, str]:
    """Start the stage, send a signal when the member's checkpoint has reached `nimg`; return exit status and output."""
    process = start(root, "gan")
    while process.poll() is None and seen(root, member) < nimg:
        time.sleep(0.005)
    process.send_signal(number)
    output = process.communicate(timeout=120)[0]
    return process.returncode, output


def seen(root: Path, member: str) -> int:
    for path in (root / ".checkpoints" / "gan" / member).glob("*/checkpoint.safetensors"):
        with safe_open(path, framework="pt") as file:
            return int(json.loads(file.metadata()["progress"])["nimg"])
    return 0


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with prepared data and an empty tracking store."""
    root = tmp_path_factory.mktemp("fresh")
    (root / "params.yaml").write_text(PARAMS)
    write_prepared(root / "data" / "prepared", n_train=100)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        Tracker(root)
    return root


@pytest.fixture(scope="module")
def unbroken(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("unbroken") / "project"
    shutil.copytree(fresh, root)
    train(root, "gan")
    return root


@pytest.fixture
def project(fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    shutil.copytree(fresh, root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return root


def members(root: Path) -> Path:
    return root / "models" / "members" / "rung1"


def test_writes_the_declared_layout(unbroken: Path) -> None:
    folder = members(unbroken) / "gan"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    snapshot = ("config.json", "generator.safetensors", "discriminator.safetensors", "profiles.safetensors")
    assert files == {
        "family.json",
        *(f"r{r}/history.json" for r in (0, 1)),
        *(f"r{r}/{nimg:09d}/{name}" for r in (0, 1) for nimg in (END // 2, END) for name in snapshot),
    }
    family = json.loads((folder / "family.json").read_text())
    assert (family["schema"], family["family"], family["members"]) == (1, "gan", ["r0", "r1"])
    assert family["params"]["width"] == 8
    config = json.loads((folder / "r1" / f"{END:09d}" / "config.json").read_text())
    facts = {"family": "gan", "member": "r1", "nimg": END, "kind": "gan", "loss": "nonsaturating"}
    assert facts.items() <= config.items()
    assert not (unbroken / ".checkpoints" / "gan").exists()


def test_tracks_each_member_so_that_its_files_find_it(unbroken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = Tracker(unbroken)
    (run,) = tracker.find(chorus_member=tree_hash(members(unbroken) / "gan" / "r0"))
    assert run.info.run_name == "gan/r0"
    assert run.info.status == "FINISHED"
    assert run.data.params["width"] == "8"
    history = json.loads((members(unbroken) / "gan" / "r0" / "history.json").read_text())
    tracked = tracker.client.get_metric_history(run.info.run_id, "loss_d")
    assert [(m.step, pytest.approx(m.value)) for m in tracked] == [(row["nimg"], row["loss_d"]) for row in history]
    assert run.inputs.dataset_inputs[0].dataset.name == "folder"
    samples = [file.path for file in tracker.client.list_artifacts(run.info.run_id, "samples")]
    every = {row["nimg"] for row in history[9::10]}
    assert samples == [f"samples/{nimg:09d}.png" for nimg in sorted(every | {END // 2, END})]


def test_killed_again_and_again_it_ends_in_the_same_bytes(project: Path, unbroken: Path) -> None:
    """SIGKILL before and after the first snapshot, SIGTERM in the second member: each process goes on from the last."""
    status, _ = end_at(project, "r0", 640, signal.SIGKILL)
    assert status == -signal.SIGKILL
    status, output = end_at(project, "r0", END // 2 + 320, signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert "going on from" in output
    status, output = end_at(project, "r1", 1600, signal.SIGTERM)
    assert status == 143
    assert "gan/r1: stopped at" in output
    assert not (members(project) / "gan").exists()
    kept = (project / ".checkpoints" / "gan" / "r0").glob("*/r0/history.json")
    before = [path.stat().st_mtime_ns for path in kept]
    assert len(before) == 1

    output = train(project, "gan")
    assert "gan/r0: complete since an earlier run" in output
    assert "gan/r1: going on from" in output
    assert tree_hash(members(project) / "gan") == tree_hash(members(unbroken) / "gan")
    assert not (project / ".checkpoints" / "gan").exists()


def test_a_unit_without_its_last_weights_is_not_complete(tmp_path: Path) -> None:
    recipe = Family(architecture="mlp", kimg=1, batch=64)
    config, streams = ModelConfig("mlp", 1, 8, 4, 4), Streams(0, "gan", 0)
    data = Data(torch.zeros(4, 1, 8, 8, dtype=torch.uint8))
    unit = Unit("gan", ("r0",), recipe, config, streams, data, tmp_path)
    write_json(unit.output("r0") / "history.json", [])
    assert not unit.complete
    write_json(unit.output("r0") / "000001024" / "config.json", {})
    assert unit.complete


def test_interrupted_in_the_terminal_then_damaged_it_says_so_and_starts_anew(project: Path, unbroken: Path) -> None:
    status, _ = end_at(project, "r0", 640, signal.SIGINT)
    assert status == 130
    (checkpoint,) = (project / ".checkpoints" / "gan" / "r0").glob("*/checkpoint.safetensors")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    assert "checkpoint is damaged" in train(project, "gan")
    assert tree_hash(members(project) / "gan") == tree_hash(members(unbroken) / "gan")


def key_of(project: Project, member: str = "r0", data: str = "data") -> str:
    return training_key(project, "gan", [member], project.params.families["gan"], data)


def test_the_key_follows_what_decides_the_weights(project: Path) -> None:
    base = Project.load(project)
    key = key_of(base)

    def with_params(before: str, after: str) -> str:
        (project / "params.yaml").write_text(PARAMS.replace(before, after))
        return key_of(Project.load(project))

    assert with_params("replicas: 2", "replicas: 5") == key
    others = [
        key_of(base, member="r1"),
        key_of(base, data="other data"),
        with_params("seed: 3", "seed: 4"),
        with_params("kimg: 6", "kimg: 7"),
        with_params("families:", "compute: {threads: 2}\nfamilies:"),
    ]
    assert len({key, *others}) == 6


def test_a_vae_has_no_discriminator_and_replaces_what_was_there(project: Path) -> None:
    stale = members(project) / "vae" / "r7" / "history.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("[]")
    train(project, "vae")
    folder = members(project) / "vae"
    assert sorted(p.name for p in folder.iterdir()) == ["family.json", "r0"]
    (snapshot,) = (p for p in (folder / "r0").iterdir() if p.is_dir())
    assert sorted(p.name for p in snapshot.iterdir()) == ["config.json", "generator.safetensors"]
    assert json.loads((snapshot / "config.json").read_text())["kind"] == "vae"


def test_replicas_that_train_as_one_are_members_like_others_and_go_on_after_the_end(project: Path) -> None:
    text = PARAMS.replace("kimg: 6,", "kimg: 1, scheme: bagging,") + "training: {replicas: fused}\n"
    (project / "params.yaml").write_text(text)
    unbroken = project.with_name("unbroken")
    shutil.copytree(project, unbroken)
    train(unbroken, "gan")
    status, output = end_at(project, "r0..r1", 320, signal.SIGTERM)
    assert status, output
    assert "going on from" in train(project, "gan")
    assert tree_hash(members(project)) == tree_hash(members(unbroken))
    folder = members(project) / "gan"
    snapshots = [sorted(path.name for path in (folder / member).glob("*/config.json")) for member in ("r0", "r1")]
    assert snapshots[0] == snapshots[1]
    histories = [json.loads((folder / member / "history.json").read_text()) for member in ("r0", "r1")]
    assert set(histories[0][-1]) == {"nimg", "loss_g", "loss_d", "logit_real", "logit_fake"}
    assert histories[0] != histories[1]
