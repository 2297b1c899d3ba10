"""Trainings that go wrong, through the real stages: found, taken back, given up, and the pipeline without them."""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from pipeline.data.dataset import SPLITS, load_split
from pipeline.data.manifest import write_manifest
from pipeline.errors import ChorusError
from pipeline.evaluation import store
from pipeline.files import read_json, remove_tree, tree_hash, write_array, write_bytes
from pipeline.project import FIRST, Project
from pipeline.stages import _job, choose, evaluate, fuse, gate, give_up, judge, reference, register, train
from pipeline.stages._failures import failures
from pipeline.tracking import Tracker
from pipeline.training import health
from pipeline.training.checkpoints import save_checkpoint
from pipeline.training.interruption import Interruption
from pipeline.training.objectives._base import Batch
from pipeline.training.objectives.adversarial import Adversarial
from pipeline.training.state import State
from pipeline.weights import load_generator
from tests.factories import write_prepared

PARAMS = """
seed: 3
data: {source: digits, watch: unused, size: 8}
compute: {device: cpu, precision: fp32}
reference: {kimg: 1}
evaluation: {samples: 64}
judge: {samples: 64}
fusion: {strategies: [best, uniform]}
families:
  sound: {architecture: mlp, kimg: 2, batch: 50, width: 8, latent: 4}
"""
EXPLODING = "{architecture: mlp, kimg: 2, batch: 50, width: 8, latent: 4, replicas: 2, lr: 1000.0}"
NO_NUMBER = "{architecture: mlp, kimg: 2, batch: 50, width: 8, latent: 4, lr: 1.0e+30}"
# Of the first snapshot, after one step: the losses are of the weights before it.
NO_PIXEL = "{architecture: vae, kimg: 2, batch: 50, width: 8, latent: 4, snapshots: 40, lr: 1.0e+30}"
# The prior's divergence outweighs all images, so the decoder learns to ignore the latent.
CONSTANT = "{architecture: vae, kimg: 60, batch: 500, width: 8, latent: 4, lr: 0.008, kl_weight: 200.0}"
# The images of one number lie on a curve, where 256 are crowded.
DUPLICATES = "{architecture: vae, kimg: 60, batch: 500, width: 8, latent: 1, lr: 0.004}"
# Plain gradient descent diverges above a threshold, here between 4 and 5.
TOO_FAST = "{architecture: vae, kimg: 4, batch: 50, width: 8, latent: 4, optimizer: sgd, momentum: 0, lr: 7.0}"
LAYERS = "{architecture: mlp, kimg: 2, batch: 50, width: 8, latent: 4, replicas: 3, lr: 1000.0, scheme: %s}"


@pytest.fixture(autouse=True)
def own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def write_digits(folder: Path) -> None:
    """Write a prepared data set of handwritten digits."""
    write_prepared(folder)
    images = (load_digits().images[:, None] * (255 / 16)).astype(np.uint8)
    for split, start in zip(SPLITS, range(0, 1024, 256), strict=True):
        kept = load_split(folder, split)
        write_array(folder / f"{split}.npy", images[start : start + len(kept.images)])
    write_manifest(folder, source="folder", size=8, channels=1, classes=("a", "b", "c"), duplicates=0, quarantined=0)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with prepared data and an empty tracking store."""
    root = tmp_path_factory.mktemp("fresh")
    write_digits(root / "data" / "prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        Tracker(root)
    return root


@pytest.fixture
def project(fresh: Path, tmp_path: Path) -> Callable[..., Project]:
    """Return a project with further families, each a line of params.yaml."""

    def make(name: str = "project", **families: str) -> Project:
        root = tmp_path / name
        shutil.copytree(fresh, root)
        lines = [f"  {family}: {recipe}\n" for family, recipe in families.items()]
        (root / "params.yaml").write_text(PARAMS.lstrip() + "".join(lines))
        return Project.load(root)

    return make


def files_of(target: Project, family: str) -> set[str]:
    folder = target.family_folder(family)
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("recipe", "reason", "by"),
    [
        (EXPLODING, "exploded", 250),
        (NO_NUMBER, "no longer a number", 250),
        (NO_PIXEL, "pixels that are no numbers", 50),
        (CONSTANT, "its variance is 0.", 50_000),
        (DUPLICATES, "of the images have a near duplicate", 50_000),
    ],
)
def test_each_fault_is_found_taken_back_twice_and_given_up(
    project: Callable[..., Project], capsys: pytest.CaptureFixture[str], recipe: str, reason: str, by: int
) -> None:
    target = project(bad=recipe)
    train.run(target, "bad")
    told = capsys.readouterr().out
    roster = read_json(target.family_folder("bad") / "family.json")
    assert roster["members"] == []
    assert roster["failed"] == list(target.params.families["bad"].members)
    assert files_of(target, "bad") == {"family.json", *(f"{member}/failure.json" for member in roster["failed"])}
    failure = read_json(target.family_folder("bad") / "r0" / "failure.json")
    assert reason in failure["reason"]
    assert len(failure["incidents"]) == 3
    assert all(incident["nimg"] <= by for incident in failure["incidents"])
    assert "back to 0 kimg with half the learning rate (2 of 2 times)" in told
    assert "train bad/r0: failed for good: " in told
    assert not (target.checkpoints / "bad").exists()

    tracker = Tracker(target.root)
    (run,) = [run for run in tracker.find(chorus_kind="member") if run.info.run_name == "bad/r0"]
    assert run.info.status == "FAILED"
    assert run.data.tags["chorus.failure"] == failure["reason"]
    assert "failure.json" in [file.path for file in tracker.client.list_artifacts(run.info.run_id)]


def test_half_the_learning_rate_helps_where_it_is_what_was_wrong(
    project: Callable[..., Project], capsys: pytest.CaptureFixture[str]
) -> None:
    target = project(fast=TOO_FAST)
    train.run(target, "fast")
    told = capsys.readouterr().out
    assert told.count("back to 0 kimg with half the learning rate") == 1
    assert "failed" not in told
    assert read_json(target.family_folder("fast") / "family.json")["failed"] == []
    history = read_json(target.family_folder("fast") / "r0" / "history.json")
    assert [row["nimg"] for row in history] == list(range(50, 4001, 50))
    (run,) = Tracker(target.root).find(chorus_kind="member")
    assert run.info.status == "FINISHED"
    assert "'reason': 'loss" in run.data.tags["chorus.incidents"]


def test_the_pipeline_goes_on_without_failed_members_while_enough_are_left(
    project: Callable[..., Project], capsys: pytest.CaptureFixture[str]
) -> None:
    target = project(bad=EXPLODING)
    (target.prepared / "quarantine.jsonl").touch()
    for family in target.params.families:
        train.run(target, family)
    reference.run(target)
    for family in target.params.families:
        evaluate.run(target, family)
    assert "bad/r1 failed in training: loss" in capsys.readouterr().out
    assert store.read_evaluation(target.evaluation_folder("bad"))["candidates"] == []
    fuse.run(target)
    choose.run(target)
    judge.run(target)
    gate.run(target)
    register.run(target)
    page = (target.report / "report.html").read_text()
    assert all(
        f'<th scope="row">{name}</th>' in page and reason["reason"] in page for name, reason in failures(target).items()
    )
    tracker = Tracker(target.root)
    assert any("bad/r0" in run.data.tags.get("chorus.failed", "") for run in tracker.find(chorus_kind="pipeline"))

    text = (target.root / "params.yaml").read_text().replace("fusion: {", "fusion: {min_members: 2, ")
    (target.root / "params.yaml").write_text(text)
    with pytest.raises(ChorusError, match=r"1 members have candidates.*min_members asks for 2 \(failed: bad/r0: loss"):
        fuse.run(Project.load(target.root))


def test_of_a_family_that_was_given_up_nothing_former_is_left(project: Callable[..., Project]) -> None:
    target = project()
    train.run(target, "sound")
    checkpoint = target.checkpoints / "sound" / "r0" / "key" / "checkpoint.safetensors"
    write_bytes(checkpoint, b"to go on from")
    give_up.run(target, "sound", FIRST, "it took too long")
    assert files_of(target, "sound") == {"family.json", "r0/failure.json"}
    assert failures(target)["sound/r0"]["reason"] == "it took too long"
    assert evaluate.candidates_of(target, "sound", FIRST) == []
    assert [path for path in target.checkpoints.rglob("*") if path.is_file()] == [checkpoint]


def test_the_next_try_trains_the_members_that_failed_and_no_other(
    project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    three = "{architecture: mlp, kimg: 2, batch: 50, width: 8, latent: 4, replicas: 3}"
    unbroken, target = project("unbroken", x=three), project("broken", x=three)
    train.run(unbroken, "x")
    plain = _job.Job.go_on

    def go_on(job: _job.Job, state: State, interruption: Interruption) -> None:
        if job.unit.members == ("r1",):
            raise health.Unhealthy(job.unit.streams, state.nimg, "made to fail")
        plain(job, state, interruption)

    with monkeypatch.context() as patch:
        patch.setattr(_job.Job, "go_on", go_on)
        train.run(target, "x")
    assert read_json(target.family_folder("x") / "family.json")["failed"] == ["r1"]
    capsys.readouterr()
    remove_tree(target.family_folder("x"))  # as DVC does before it runs a stage
    train.run(target, "x")
    told = capsys.readouterr().out
    assert [f"train x/{member}: complete" in told for member in ("r0", "r1", "r2")] == [True, False, True]
    assert tree_hash(target.family_folder("x")) == tree_hash(unbroken.family_folder("x"))
    assert not (target.checkpoints / "x").exists()


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it is written."""


def test_a_training_that_runs_out_of_memory_goes_on_in_parts_and_remembers(
    project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = project()
    plain, tried = Adversarial.step, []

    def step(objective: Adversarial, state: State, batch: Batch) -> Tensor:
        tried.append(len(batch.real))
        if len(batch.real) > 15 and state.nimg >= 500:
            torch.empty(10**15)  # which no memory holds
        return plain(objective, state, batch)

    monkeypatch.setattr(Adversarial, "step", step)
    monkeypatch.setenv("CHORUS_CHECKPOINT_SECONDS", "0")
    train_killed_at(target, "sound", 15, monkeypatch)
    told = capsys.readouterr().out
    assert "out of memory; back to 0.5 kimg, with batches of 50 images in parts of 25" in told
    assert "back to 0.5 kimg, with batches of 50 images in parts of 13" in told
    tried.clear()
    train.run(target, "sound")
    assert set(tried) == {12, 13}
    assert read_json(target.family_folder("sound") / "family.json")["failed"] == []
    runs = Tracker(target.root).find(chorus_kind="member")
    assert "13" in {run.data.tags.get("chorus.micro") for run in runs}


def train_killed_at(target: Project, family: str, moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train until the checkpoint of that number is written, or to the end where there are not so many."""
    written = 0

    def save(*arguments: Any) -> None:
        nonlocal written
        save_checkpoint(*arguments)
        written += 1
        if written == moment:
            raise Killed

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(_job.checkpoints, "save_checkpoint", save)
        train.run(target, family)


@pytest.mark.parametrize("recipe", [TOO_FAST, EXPLODING])
def test_killed_again_and_again_it_ends_in_the_same_bytes(
    project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    """Checkpoints every step, killed after each of the first, which are those around the incidents."""
    monkeypatch.setattr(health, "INTERVAL", 100)
    unbroken, broken = project("unbroken", bad=recipe), project("broken", bad=recipe)
    train.run(unbroken, "bad")
    monkeypatch.setenv("CHORUS_CHECKPOINT_SECONDS", "0")
    for _ in range(8):
        train_killed_at(broken, "bad", 2, monkeypatch)
    train.run(broken, "bad")
    assert tree_hash(broken.family_folder("bad")) == tree_hash(unbroken.family_folder("bad"))


@pytest.mark.parametrize(("scheme", "left"), [("cascade", ["r0", "r1", "r2"]), ("joint", ["r0", "r1", "r2"])])
def test_members_that_need_a_failed_one_fail_with_it(
    project: Callable[..., Project], scheme: str, left: list[str]
) -> None:
    target = project(bad=LAYERS % scheme)
    train.run(target, "bad")
    assert read_json(target.family_folder("bad") / "family.json")["failed"] == left
    reasons = {name: failure["reason"] for name, failure in failures(target).items()}
    assert list(reasons) == [f"bad/{member}" for member in left]
    if scheme == "cascade":
        assert reasons["bad/r2"] == "bad/r1, which it refines, failed"


def test_a_boosted_mixture_whose_first_part_failed_is_the_member_that_failed(project: Callable[..., Project]) -> None:
    target = project(bad=LAYERS % "boosting")
    train.run(target, "bad")
    assert files_of(target, "bad") == {
        "family.json",
        *(f"{m}/failure.json" for m in target.params.families["bad"].members),
    }


def test_a_part_that_failed_is_listed_beside_the_mixture_of_those_before(
    project: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = project(bad=(LAYERS % "boosting").replace("lr: 1000.0", "lr: 0.001"))
    plain = _job.Job.go_on

    def go_on(job: _job.Job, state: State, interruption: Interruption) -> None:
        if job.unit.members == ("part1",):
            raise health.Unhealthy(job.unit.streams, state.nimg, "made to fail")
        plain(job, state, interruption)

    with monkeypatch.context() as patch:
        patch.setattr(_job.Job, "go_on", go_on)
        train.run(target, "bad")
    roster = read_json(target.family_folder("bad") / "family.json")
    assert (roster["members"], roster["failed"]) == (["boosted"], ["part1"])
    assert {name: failure["reason"] for name, failure in failures(target).items()} == {"bad/part1": "made to fail"}
    (snapshot,) = evaluate.candidates_of(target, "bad", FIRST)
    assert len(load_generator(target.snapshot(snapshot))[1].parts) == 1
