"""The gate stage on a small project with a real registry: a candidate against a champion of its own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import registry
from pipeline.compute import set_up
from pipeline.evaluation import store
from pipeline.evaluation.extractors import load_extractors
from pipeline.evaluation.intervals import difference, estimate
from pipeline.files import read_json, write_json
from pipeline.fusion.samplers import draw
from pipeline.params import Compute
from pipeline.project import Project
from pipeline.randomness import derive_seed
from pipeline.recipes import load_sampler
from pipeline.stages import gate, reference
from pipeline.stages._trial import try_out
from pipeline.stages._verdict import outdated
from pipeline.tracking import Tracker
from tests.factories import write_prepared
from tests.factories_fused import write_fused
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


def test_the_champion_itself_is_not_fetched(made: Project, tmp_path: Path) -> None:
    tracker = Tracker(made.root)
    content = registry.said_content(tracker, "chorus", "1")
    champion = gate.read_champion(made, tracker, content, tmp_path)
    assert champion is not None
    assert (champion.itself, champion.folder) == (True, None)


@pytest.mark.parametrize("file", ["generator.safetensors", "recipes.py", "MLmodel"])
def test_an_altered_champion_cannot_be_measured(made: Project, tmp_path: Path, file: str) -> None:
    tracker = Tracker(made.root)
    path = next((made.root / "mlartifacts").rglob(file))
    kept = path.read_bytes()
    path.write_bytes(kept + b"\n")
    champion = gate.read_champion(made, tracker, "other", tmp_path)
    path.write_bytes(kept)
    assert champion is not None
    assert champion.folder is None
    assert champion.problem is not None
    assert ("damaged" in champion.problem) == (file == "generator.safetensors")


def test_a_package_that_does_not_load_is_a_fault_and_no_exception(tmp_path: Path) -> None:
    write_fused(tmp_path / "chosen")
    with registry.packed(tmp_path / "chosen") as (content, _):
        package = registry.write_candidate(content, tmp_path)
    for path in package.rglob("recipes.py"):
        path.write_text("import pipeline.recipes\n")
    (tmp_path / "out").mkdir()
    tried = try_out(package, tmp_path / "out", 64, 1, set_up(Compute(device="cpu")))
    assert tried.images is None
    assert tried.fault is not None
    assert "which it has to carry itself" in tried.fault
    assert tried.megabytes > 0.01


def test_images_of_another_size_are_a_fault(made: Project) -> None:
    scale = gate.Scale(made, set_up(made.params.compute))
    images = torch.from_numpy(np.zeros((200, 3, 16, 16), np.uint8))
    scored = scale.score(gate.Tried(images, None, 1.0, 1.0, 2.0))
    assert not scored.metrics
    assert scored.tried.fault is not None
    assert "3×16×16 (channels, height, width), and the data are 1×8×8" in scored.tried.fault
