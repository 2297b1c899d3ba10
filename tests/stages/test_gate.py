"""The gate stage and the opening of the test split, on a small project with a registry of its own."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import registry
from pipeline.__main__ import main
from pipeline.compute import set_up
from pipeline.data.dataset import load_split
from pipeline.errors import ChorusError
from pipeline.evaluation import frechet, store
from pipeline.evaluation.extractors import load_extractors
from pipeline.evaluation.intervals import difference, estimate
from pipeline.files import read_json, tree_hash, write_json
from pipeline.fusion.samplers import draw
from pipeline.params import Compute
from pipeline.project import Project
from pipeline.randomness import derive_seed
from pipeline.recipes import load_sampler
from pipeline.stages import gate, opening, reference
from pipeline.stages._trial import try_out
from pipeline.stages._verdict import outdated
from pipeline.tracking import Tracker
from tests.factories import write_prepared
from tests.factories_fused import write_fused, write_snapshot
from tests.test_registry import register

PARAMS = """
seed: 3
data: {source: digits, watch: unused, size: 8}
compute: {device: cpu, precision: fp32}
reference: {kimg: 1, selection: [selfsup], judges: [selfsup-b, pixels]}
families: {mlp: {architecture: mlp, kimg: 1, replicas: 2, width: 8, latent: 4}}
judge: {samples: 200}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose champion and whose chosen model weigh the same untrained members otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        root = tmp_path_factory.mktemp("project")
        root.joinpath("params.yaml").write_text(PARAMS)
        project = Project.load(root)
        write_prepared(project.prepared, n_gate=96)
        reference.run(project)
        write_fused(project.fused)
        version = register(root)
        Tracker(root).client.set_registered_model_alias("chorus", "champion", version.number)
        write_fused(project.chosen, weights=(0.1, 0.9))
        recipe = read_json(project.chosen / "recipe.json")["recipe"]
        chosen = {"schema": 1, "kind": "strategy", "name": "weighted", "recipe": recipe}
        write_json(project.chosen / "recipe.json", chosen)
        members = {f"mlp/r{i}": f"mlp/r{i}/000001000" for i in range(2)}
        for i, name in enumerate(members.values()):
            write_snapshot(project.members / "rung1" / name, seed=i)
        told = {
            "members": members,
            "pool": {members["mlp/r0"]: 2.0, members["mlp/r1"]: 1.0},
            "strategies": [{"name": "weighted", "recipe": recipe}, {"name": "vote", "skipped": "no discriminator"}],
        }
        write_json(project.fused / "strategies.json", told)
        return project


@pytest.fixture(autouse=True)
def own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_both_are_measured_alike_and_as_the_judge_would(made: Project) -> None:
    gate.run(made)
    said = read_json(made.verdict)
    seed = derive_seed(3, "judge", "weighted")
    assert (said["seed"], said["samples"], said["images"]) == (seed, 200, 96)
    estimates = {}
    for name, folder in (("candidate", made.chosen), ("champion", made.fused)):
        sampler = load_sampler(read_json(folder / "recipe.json")["recipe"], (folder / "members").joinpath)
        images = draw(sampler, 200, seed=seed)
        assert said[name]["passes"] == sampler.cost
        assert (made.gate_pictures / f"{name}.png").exists()
        ruler = store.read_ruler(made.reference, "pixels")
        extractor = load_extractors(made.reference, ["pixels"])["pixels"]
        features, real = extractor.features(images), store.read_features(made.reference, "gate", "pixels")
        distance = said[name]["metrics"][ruler.name]
        estimates[name] = estimate(features, real, ruler)
        assert distance == pytest.approx(estimates[name].measured)
    row = next(row for row in said["comparison"] if row["metric"] == ruler.name)
    apart = difference(estimates["candidate"], estimates["champion"])
    assert (row["difference"]["low"], row["difference"]["high"]) == pytest.approx((apart.low, apart.high))
    assert said["comparison"][0]["metric"] == "rfd_judges"
    verdicts = {rule["name"]: rule["verdict"] for rule in said["rules"]}
    assert verdicts["smoke"] == "passed"
    assert verdicts["improvement"] in ("passed", "failed")
    assert said["passed"] == ("failed" not in verdicts.values())
    assert said["champion"]["version"] == "1"
    assert outdated(made, Tracker(made.root)) is None
    Tracker(made.root).client.delete_registered_model_alias("chorus", "champion")
    assert outdated(made, Tracker(made.root)) == "the champion is none, and the gate compared with version 1"
    Tracker(made.root).client.set_registered_model_alias("chorus", "champion", "1")


def test_the_champion_itself_is_not_measured(made: Project, tmp_path: Path) -> None:
    tracker = Tracker(made.root)
    content = registry.said_content(tracker, "chorus", "1")
    champion = gate.read_champion(made, tracker, content, tmp_path)
    assert champion is not None
    assert (champion.itself, champion.folder) == (True, None)


@pytest.mark.parametrize("itself", [False, True])
@pytest.mark.parametrize("file", ["generator.safetensors", "recipes.py", "MLmodel"])
def test_an_altered_champion_cannot_be_measured(made: Project, tmp_path: Path, file: str, itself: bool) -> None:
    tracker = Tracker(made.root)
    candidate = registry.said_content(tracker, "chorus", "1") if itself else "other"
    path = next((made.root / "mlartifacts").rglob(file))
    kept = path.read_bytes()
    path.write_bytes(kept + b"\n")
    champion = gate.read_champion(made, tracker, candidate, tmp_path)
    path.write_bytes(kept)
    assert champion is not None
    assert (champion.itself, champion.folder) == (False, None)
    assert champion.problem is not None
    assert ("damaged" in champion.problem) == (file == "generator.safetensors")


def test_a_package_that_does_not_load_is_a_fault_and_no_exception(made: Project, tmp_path: Path) -> None:
    package = tmp_path / "package"
    shutil.copytree(next((made.root / "mlartifacts").rglob("MLmodel")).parent, package)
    for path in package.rglob("recipes.py"):
        path.write_text("import pipeline.recipes\n")
    (tmp_path / "out").mkdir()
    tried = try_out(package, tmp_path / "out", 64, 1, set_up(Compute(device="cpu")))
    assert tried.images is None
    assert tried.fault is not None
    assert "which it has to carry itself" in tried.fault
    assert tried.megabytes > 0.01


def test_real_images_are_measured_as_many_as_are_drawn(made: Project) -> None:
    few = made.params.judge.model_copy(update={"samples": 60})
    gauge = gate.Gauge(replace(made, params=made.params.model_copy(update={"judge": few})), set_up(made.params.compute))
    images = torch.from_numpy(np.array(load_split(made.prepared, "val").images))
    assert len(images) == 96
    assert gauge.of_real() == gauge.score(gate.Tried(images[:60], None, 1.0, 1.0, 2.0)).metrics


def test_images_of_another_size_are_a_fault(made: Project) -> None:
    gauge = gate.Gauge(made, set_up(made.params.compute))
    images = torch.from_numpy(np.zeros((200, 3, 16, 16), np.uint8))
    scored = gauge.score(gate.Tried(images, None, 1.0, 1.0, 2.0))
    assert not scored.metrics
    assert scored.tried.fault is not None
    assert "3×16×16 (channels, height, width), and the data are 1×8×8" in scored.tried.fault


def test_the_test_split_opens_for_a_signed_reason_which_is_written_down(
    made: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(made.root)
    for refused in (["--split", "test"], ["--split", "test", "--by", "Ann"], ["--by", "Ann", "--why", "paper"]):
        assert main(["judge", *refused]) == 2
        assert "go together" in capsys.readouterr().err
    assert main(["judge", "--split", "test", "--by", "Ann", "--why", " "]) == 2
    assert not made.openings.exists()
    before = tree_hash(made.reference), tree_hash(made.report)
    for why in ("the README's claims", "again"):
        assert main(["judge", "--split", "test", "--by", "Ann", "--why", why]) == 0
    printed = capsys.readouterr().out
    assert "test-openings.jsonl, which is to be committed" in printed
    entries = [json.loads(line) for line in made.openings.read_text().splitlines()]
    assert [(entry["by"], entry["why"]) for entry in entries] == [("Ann", "the README's claims"), ("Ann", "again")]
    tracker = Tracker(made.root)
    runs = {run.info.run_id: run for run in tracker.find(chorus_kind="opening")}
    assert set(runs) == {entry["run"] for entry in entries}
    for entry in entries:
        run = runs[entry["run"]]
        assert (run.data.tags["chorus.why"], run.info.status) == (entry["why"], "FINISHED")
    told = read_json(Path(tracker.client.download_artifacts(entries[0]["run"], "test.json", str(made.root))))
    assert (told["split"], told["images"], told["shipped"]["name"]) == ("test", 64, "weighted")
    assert [arm["name"] for arm in told["arms"]] == ["mlp/r0", "mlp/r1", "weighted"]
    # By images of that split, and no other's: measured again by hand.
    ruler, extractor = store.read_ruler(made.reference, "pixels"), load_extractors(made.reference, ["pixels"])["pixels"]
    sampler = load_sampler(read_json(made.chosen / "recipe.json")["recipe"], made.snapshot)
    found = extractor.features(draw(sampler, 200, seed=derive_seed(3, "test", "weighted")))
    real = extractor.features(np.array(load_split(made.prepared, "test").images))
    wanted = frechet.distance(ruler.see(found.moments), ruler.see(real.moments))
    assert told["arms"][2]["metrics"][ruler.name] == pytest.approx(wanted)
    assert (tree_hash(made.reference), tree_hash(made.report)) == before


def test_an_opening_that_fails_is_written_down_all_the_same(made: Project) -> None:
    (made.prepared / "test.npy").rename(made.root / "kept.npy")
    opened = made.openings.read_text().count("\n") if made.openings.exists() else 0
    try:
        with pytest.raises(ChorusError, match=r"test\.npy is missing"):
            opening.run(made, "Ann", "a look")
    finally:
        (made.root / "kept.npy").rename(made.prepared / "test.npy")
    assert made.openings.read_text().count("\n") == opened + 1
    last = Tracker(made.root).find(chorus_kind="opening")[0]
    assert last.info.status == "FAILED"
