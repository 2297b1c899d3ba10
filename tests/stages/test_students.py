"""Students on small folders: distill, evaluate-student and choose, one after another as DVC runs them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.compute import set_up
from pipeline.data.dataset import load_split, read_manifest
from pipeline.errors import ChorusError
from pipeline.evaluation import store
from pipeline.files import read_json, tree_hash, write_json
from pipeline.fusion.samplers import draw
from pipeline.models._base import ModelConfig, architecture
from pipeline.params import parse_params
from pipeline.project import Project
from pipeline.randomness import derive_seed
from pipeline.recipes import load_sampler
from pipeline.stages import choose, distill, evaluate, evaluate_student, fuse, judge, reference
from pipeline.stages._teacher import teacher_hash
from pipeline.training import loop
from pipeline.weights import load_generator, save_snapshot
from tests.factories import write_prepared

PARAMS = """
seed: 3
data: {source: digits, watch: unused, size: 8}
compute: {device: cpu, precision: fp32}
reference: {kimg: 2}
families:
  gan: {architecture: mlp, kimg: 1, latent: 8, width: 8, conditional: %s}
evaluation: {samples: 100}
fusion: {strategies: [best]}
judge: {samples: 100}
students: %s
choose: {tolerance: %s}
"""
SMALL = "{small: {architecture: mlp, kimg: 1.3, batch: 16, latent: 4, width: 8, samples: 200}}"
BY_CLASS = SMALL.replace("latent: 4", "latent: 4, conditional: true")
REPOSITORY = Path(__file__).parents[2]
END = "000001312"  # 82 batches of 16


def project(root: Path, conditional: bool = False, students: str = SMALL, tolerance: str = "null") -> Project:
    text = PARAMS % (str(conditional).lower(), students, tolerance)
    (root / "params.yaml").write_text(text)
    return Project(root, parse_params(text))


def write_until_fused(target: Project) -> None:
    """Leave the files of all stages up to the fusion, of one member that nobody trained."""
    write_prepared(target.prepared)
    reference.run(target)
    shares = (0.25, 0.25, 0.5) if target.params.families["gan"].conditional else ()
    config = ModelConfig("mlp", 1, 8, 8, 8, class_shares=shares)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = architecture("mlp").generator(config)
    save_snapshot(target.family_folder("gan") / "r0" / "000001024", config, {"generator": network})
    write_json(target.family_folder("gan") / "r0" / "history.json", [])
    write_json(target.family_folder("gan") / "family.json", {"schema": 1, "family": "gan", "members": ["r0"]})
    evaluate.run(target, "gan")
    fuse.run(target)


@pytest.fixture(scope="module", autouse=True)
def own_store() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fused")
    write_until_fused(project(root))
    return root


@pytest.fixture(scope="module")
def made(fused: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "project"
    shutil.copytree(fused, root)
    target = project(root)
    distill.run(target, "small")
    evaluate_student.run(target, "small")
    return root


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "project")
    return tmp_path / "project"


def test_fusion_says_who_teaches_whether_there_are_students_or_not(fused: Path) -> None:
    target = Project.load(fused)
    assert read_json(target.students / "teacher.json") == read_json(target.fused / "recipe.json")


def test_distill_delivers_a_student_and_its_control(made: Path) -> None:
    target = Project.load(made)
    folder = target.student_weights / "small"
    snapshot = ("config.json", "discriminator.safetensors", "generator.safetensors")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "student.json",
        *(f"{role}/history.json" for role in ("student", "control")),
        *(f"{role}/{END}/{name}" for role in ("student", "control") for name in snapshot),
    }
    about = read_json(folder / "student.json")
    assert (about["student"], about["samples"], about["teacher"]) == ("small", 200, teacher_hash(target))
    assert not (target.checkpoints / "small").exists()
    networks = [load_generator(target.snapshot(f"small/{role}/{END}"))[0] for role in ("student", "control")]
    pairs = zip(*(network.parameters() for network in networks), strict=True)
    assert not any(torch.equal(one, other) for one, other in pairs)


def test_student_and_control_differ_in_their_images_alone(fused: Path, tmp_path: Path) -> None:
    shutil.copytree(fused, tmp_path / "project")
    target = Project.load(tmp_path / "project")
    runtime = set_up(target.params.compute)
    sampler = load_sampler(distill.teacher_recipe(target), target.snapshot)
    student, control = distill.units(target, "small", read_manifest(target.prepared), runtime, sampler)
    assert (student.recipe, student.config) == (control.recipe, control.config)
    states = [loop.build(unit.recipe, unit.config, runtime, unit.streams) for unit in (student, control)]
    tensors = [state.tensors() for state in states]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(value, tensors[1][name]) for name, value in tensors[0].items())
    assert student.folder != control.folder
    seed = derive_seed(3, "distill", "small")
    assert torch.equal(student.data.images, draw(sampler, 200, seed=seed))
    np.testing.assert_array_equal(control.data.images, load_split(target.prepared, "train").images)


def test_a_conditional_student_learns_images_of_asked_classes(tmp_path: Path) -> None:
    target = project(tmp_path, conditional=True, students=BY_CLASS)
    write_until_fused(target)
    runtime = set_up(target.params.compute)
    sampler = load_sampler(distill.teacher_recipe(target), target.snapshot)
    student, control = distill.units(target, "small", read_manifest(target.prepared), runtime, sampler)
    labels = student.data.labels
    assert labels is not None
    assert set(labels.tolist()) == {0, 1, 2}
    assert torch.equal(student.data.images, draw(sampler, 200, seed=derive_seed(3, "distill", "small"), labels=labels))
    assert control.data.labels is not None
    distill.run(target, "small")
    evaluate_student.run(target, "small")
    classes = [entry["classes"] for entry in store.read_evaluation(target.student_evaluation / "small")["candidates"]]
    assert classes == [3, 3]


def test_what_cannot_learn_from_this_fusion_is_skipped_and_the_rest_goes_on(fused: Path, tmp_path: Path) -> None:
    shutil.copytree(fused, tmp_path / "project")
    target = project(tmp_path / "project", students=BY_CLASS, tolerance="0.5")
    distill.run(target, "small")
    evaluate_student.run(target, "small")
    choose.run(target)
    table = read_json(target.chosen / "students.json")
    assert table["shipped"] == {"kind": "strategy", "name": "best"}
    assert "knows no classes" in table["rows"][-1]["why"]
    judge.run(target)
    assert all(arm["kind"] != "student" for arm in read_json(target.report / "metrics.json")["arms"])


@pytest.mark.parametrize(
    ("gap", "lacks"),
    [
        ({"shares": [0.5, 0, 0.5], "table": [[1], [0], [1]]}, 1),
        ({"shares": [0.5, 0.5], "table": [[1], [1]]}, 2),  # a class that the real images to fit on lacked
    ],
)
def test_classes_that_no_member_draws_are_not_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], gap: dict[str, Any], lacks: int
) -> None:
    target = project(tmp_path, conditional=True, students=BY_CLASS)
    write_until_fused(target)
    path = target.students / "teacher.json"
    candidate = {"kind": "candidate", "id": "gan/r0/000001024"}
    recipe = {"kind": "moe", "by_class": True, "weights": [1], "parts": [candidate], **gap}
    write_json(path, read_json(path) | {"recipe": recipe})
    distill.run(target, "small")
    name = read_manifest(target.prepared)["classes"][lacks]
    reason = f"it is conditional, and no member of the fused sampler draws {name}"
    assert read_json(target.student_weights / "small" / "student.json")["skipped"] == reason
    assert f"distill small: skipped: {reason}" in capsys.readouterr().out


def test_both_are_measured_as_candidates_are(made: Path) -> None:
    target = Project.load(made)
    evaluation = store.read_evaluation(target.student_evaluation / "small")
    assert evaluation["models_hash"] == tree_hash(target.student_weights / "small")
    entries = {entry["member"]: entry for entry in evaluation["candidates"]}
    assert set(entries) == {"student", "control"}
    for role, entry in entries.items():
        assert entry["id"] == f"small/{role}/{END}"
        assert entry["bytes"] == (target.snapshot(entry["id"]) / "generator.safetensors").stat().st_size
        assert (entry["passes"], entry["classes"]) == (1.0, 0)
        features = store.candidate_features(target.student_evaluation / "small", entry["id"], "classifier")
        assert len(features.values) == 100


def test_choose_keeps_the_fusion_or_ships_the_student(folder: Path) -> None:
    target = project(folder, tolerance="null")
    choose.run(target)
    kept = read_json(target.chosen / "recipe.json")
    assert kept["recipe"] == read_json(target.fused / "recipe.json")["recipe"]
    assert tree_hash(target.chosen / "members") == tree_hash(target.fused / "members")

    target = project(folder, tolerance="1000")
    choose.run(target)
    content = read_json(target.chosen / "recipe.json")
    assert (content["kind"], content["name"]) == ("student", "small")
    images = draw(load_sampler(content["recipe"], (target.chosen / "members").joinpath), 3, seed=0)
    assert images.shape == (3, 1, 8, 8)
    rows = read_json(target.chosen / "students.json")["rows"]
    assert [(row["kind"], row["shipped"]) for row in rows] == [
        ("strategy", False),
        ("control", False),
        ("student", True),
    ]
    judge.run(target)
    metrics = read_json(target.report / "metrics.json")
    assert metrics["shipped"] == {"kind": "student", "name": "small"}
    assert [arm["name"] for arm in metrics["arms"]] == ["gan/r0", "best", "small-control", "small"]
    assert [arm["name"] for arm in metrics["intervals"]["arms"]] == [arm["name"] for arm in metrics["arms"]]
    assert (target.report / "figures" / "student" / "small.png").exists()
    told = metrics["classifiers"]["two_sample"]
    assert [(row["kind"], row["name"]) for row in told] == [
        ("student", "small"),
        ("member", "gan/r0"),
        ("real", "real images"),
    ]
    assert told[0]["low"] > 0.5  # of a student that learnt for a second
    assert all("unconditional" in row["skipped"] for row in metrics["classifiers"]["classification"]["rows"])
    for rows in (metrics["memorisation"], metrics["classes"]["rows"]):
        assert [row["name"] for row in rows] == ["real images", "small", "gan/r0"]
    assert all((target.report / "figures" / "nearest" / f"{name}.png").exists() for name in ("small", "gan-r0"))


def test_without_students_what_was_fused_is_chosen(folder: Path) -> None:
    target = project(folder, students="{}", tolerance="1000")
    choose.run(target)
    assert not list(target.students.glob("*/small"))
    assert (target.students / "teacher.json").exists()
    assert [row["why"] for row in read_json(target.chosen / "students.json")["rows"]] == ["shipped"]


def test_a_student_of_another_sampler_or_other_weights_is_refused(folder: Path) -> None:
    target = Project.load(folder)
    recipe = target.students / "teacher.json"
    write_json(recipe, read_json(recipe) | {"recipe": {"kind": "candidate", "id": "gan/r1/000001024"}})
    with pytest.raises(ChorusError, match="small learnt from another sampler"):
        choose.run(target)
    (target.student_weights / "small" / "student" / "history.json").write_text("[]")
    with pytest.raises(ChorusError, match="other weights were measured"):
        choose.run(target)


def test_a_killed_distillation_goes_on_to_the_same_bytes(fused: Path, made: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(fused, root)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "CHORUS_CHECKPOINT_SECONDS": "0"}
    command = [sys.executable, "-m", "pipeline", "distill", "small"]
    process = subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(root.glob(".checkpoints/small/student/*/checkpoint.safetensors")):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert list(root.glob(".checkpoints/small/student/*/images.npy"))
    process = subprocess.Popen(command, cwd=root, env=environment, text=True, stdout=subprocess.PIPE)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert "small/student: going on from" in output
    assert "drawing" not in output
    assert tree_hash(root / "models" / "students" / "weights") == tree_hash(made / "models" / "students" / "weights")
