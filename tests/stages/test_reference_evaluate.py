"""The reference and evaluate stages on small folders: what they write, that it repeats, and what they refuse."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import ChorusError
from pipeline.evaluation import frechet, store
from pipeline.evaluation.extractors import load_extractors
from pipeline.files import read_json, tree_hash, write_json
from pipeline.fusion.samplers import CandidateSampler, draw
from pipeline.models._base import ModelConfig, architecture
from pipeline.params import parse_params
from pipeline.project import Project
from pipeline.randomness import derive_seed
from pipeline.stages import evaluate, reference
from pipeline.tracking import Tracker
from pipeline.weights import load_generator, save_snapshot
from tests.factories import write_prepared

PARAMS = """
seed: 3
data: {source: digits, watch: unused, size: 8}
compute: {device: cpu, precision: fp32}
reference: {kimg: 2%s}
families:
  gan: {architecture: mlp, kimg: 1, replicas: 2, snapshots: 2, latent: 8}
evaluation: {samples: 100}
"""
SNAPSHOTS = ("000000512", "000001024")


def project(root: Path, reference_settings: str = "") -> Project:
    return Project(root, parse_params(PARAMS % reference_settings))


def write_members(target: Project, scale: float = 1.0, class_shares: tuple[float, ...] = ()) -> None:
    for member in ("r0", "r1"):
        for snapshot in SNAPSHOTS:
            config = ModelConfig("mlp", 1, 8, 8, 8, class_shares=class_shares)
            with torch.random.fork_rng():
                torch.manual_seed(derive_seed(member, snapshot))
                network = architecture("mlp").generator(config)
            for parameter in network.parameters():
                parameter.data.mul_(scale)
            save_snapshot(target.family_folder("gan") / member / snapshot, config, {"generator": network})
        write_json(target.family_folder("gan") / member / "history.json", [])
    write_json(target.family_folder("gan") / "family.json", {"schema": 1, "family": "gan", "members": ["r0", "r1"]})


@pytest.fixture(autouse=True)
def own_store(monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Project:
    """A labelled project up to its reference and members."""
    target = project(tmp_path_factory.mktemp("project"))
    write_prepared(target.prepared)
    reference.run(target)
    write_members(target)
    return target


def test_reference_holds_extractors_features_rulers_and_floors(made: Project) -> None:
    content = store.read_reference(made.reference)
    assert content["labelled"] is True
    assert content["selection"] == ["classifier", "selfsup"]
    assert content["judges"] == ["classifier-b", "selfsup-b"]
    assert content["extractors"]["classifier"]["accuracy"] > 0.9
    assert content["extractors"]["selfsup"]["accuracy"] is None
    for name, extractor in load_extractors(made.reference, content["extractors"]).items():
        assert extractor.hash == content["extractors"][name]["hash"]
        for split, count in (("train", 256), ("val", 96), ("gate", 64)):
            features = store.read_features(made.reference, split, name)
            assert features.values.shape == (count, 32 if name == "selfsup-b" else 64)
            images = np.load(made.prepared / f"{split}.npy")
            np.testing.assert_allclose(extractor.features(images).values, features.values, rtol=1e-5, atol=1e-5)
            assert (features.logits is None) == name.startswith("selfsup")
        assert f"kid_{name}" in content["floors"]["held_out"]
    ruler = store.read_ruler(made.reference, "classifier")
    assert content["rulers"]["classifier"] == {"name": "fd16_classifier", "dims": 16, "spread": ruler.spread}
    assert ruler.project(store.read_features(made.reference, "gate", "classifier").values).shape == (64, 16)
    train = store.read_features(made.reference, "train", "classifier").values
    assert np.trace(frechet.moments(ruler.relative(train))[1]) == pytest.approx(1)
    # Real images are no farther from real ones than a small part of their variance.
    assert 0 < content["floors"]["val"]["rfd_selection"] < 0.2
    assert set(content["floors"]) == {"val", "held_out"}
    labels = store.read_labels(made.reference, "gate")
    assert labels is not None
    assert (labels == np.load(made.prepared / "gate_labels.npy")).all()


def test_the_test_split_stays_closed(made: Project, tmp_path: Path) -> None:
    write_prepared(tmp_path / "data" / "prepared")
    for file in (tmp_path / "data" / "prepared").glob("test*"):
        file.unlink()
    reference.run(project(tmp_path))
    assert tree_hash(tmp_path / "data" / "reference") == tree_hash(made.reference)


def test_unlabelled_images_are_measured_without_labels(tmp_path: Path) -> None:
    target = project(tmp_path)
    write_prepared(target.prepared, classes=None)
    reference.run(target)
    content = store.read_reference(target.reference)
    assert content["labelled"] is False
    assert content["selection"] == ["selfsup"]
    assert content["judges"] == ["selfsup-b", "pixels"]
    assert [ruler.name for ruler in store.deciding_rulers(target.reference)] == ["fd16_selfsup"]
    assert store.read_labels(target.reference, "val") is None
    write_members(target)
    evaluate.run(target, "gan")
    metrics = store.read_evaluation(target.evaluation_folder("gan"))["candidates"][0]["metrics"]
    kinds = ("fd16", "fd", "kid", "precision", "recall", "density", "coverage")
    assert set(metrics) == {*(f"{kind}_selfsup" for kind in kinds), "rfd_selection"}


@pytest.mark.parametrize(("samples", "name"), [(319, "fd16_pixels"), (320, "fd_pixels")])
def test_few_generated_images_are_as_good_a_reason_for_few_dimensions_as_few_real_ones(
    tmp_path: Path, samples: int, name: str
) -> None:
    text = (PARAMS % ", selection: [pixels], judges: [selfsup-b]").replace("samples: 100", f"samples: {samples}")
    target = Project(tmp_path, parse_params(text))
    write_prepared(target.prepared, n_val=640, classes=None)
    reference.run(target)
    assert [ruler.name for ruler in store.deciding_rulers(target.reference)] == [name]


def test_a_classifier_without_classes_is_refused(tmp_path: Path) -> None:
    target = project(tmp_path, ", judges: [classifier]")
    write_prepared(target.prepared, classes=None)
    with pytest.raises(ChorusError, match="'classifier' learns classes and the data have none"):
        reference.run(target)


def test_the_smallest_data_set_passes_with_warnings(tmp_path: Path) -> None:
    target = project(tmp_path)
    write_prepared(target.prepared, n_train=5, n_val=4, n_gate=4)
    reference.run(target)
    assert (
        "fd_classifier: 4 images for 64 features; use kid_classifier instead"
        in store.read_reference(target.reference)["warnings"]
    )


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    target = project(tmp_path)
    write_prepared(target.prepared, n_gate=3)
    with pytest.raises(ChorusError, match=r"gate has 3 images.*at least 4.*data\.splits"):
        reference.run(target)


def test_weights_that_are_not_there_end_the_stage(tmp_path: Path) -> None:
    target = project(tmp_path, ", selection: [inception-v3-compat], weights: {inception-v3-compat: nowhere.pth}")
    write_prepared(target.prepared)
    with pytest.raises(ChorusError, match=r"there is no file .*nowhere\.pth; get weights-inception"):
        reference.run(target)


def test_evaluation_holds_each_candidate_measured_once(made: Project) -> None:
    evaluate.run(made, "gan")
    folder = made.evaluation_folder("gan")
    content = store.read_evaluation(folder)
    assert content["family"] == "gan"
    assert content["models_hash"] == tree_hash(made.family_folder("gan"))
    assert content["samples"] == 100
    entries = content["candidates"]
    assert [entry["id"] for entry in entries] == [f"gan/{m}/{s}" for m in ("r0", "r1") for s in SNAPSHOTS]
    assert [(entry["member"], entry["nimg"]) for entry in entries[:2]] == [("r0", 512), ("r0", 1024)]
    floor = store.read_reference(made.reference)["floors"]["val"]
    assert all(entry["metrics"]["fd16_classifier"] > floor["fd16_classifier"] for entry in entries)
    assert "fd16_classifier-b" not in entries[0]["metrics"]
    rulers = store.deciding_rulers(made.reference)
    for entry in entries:
        relative = [entry["metrics"][ruler.name] / ruler.spread for ruler in rulers]
        assert entry["metrics"]["rfd_selection"] == pytest.approx(np.mean(relative))
    assert (folder / "r0" / SNAPSHOTS[0] / "grid.png").exists()

    candidate = entries[1]["id"]
    sampler = CandidateSampler(load_generator(made.snapshot(candidate))[0])
    images = draw(sampler, 100, seed=derive_seed(3, "evaluate", candidate))
    again = load_extractors(made.reference, ["classifier"])["classifier"].features(images)
    assert (store.candidate_features(folder, candidate, "classifier").values == again.values).all()

    before = tree_hash(folder)
    evaluate.run(made, "gan")
    assert tree_hash(folder) == before


def test_what_conditional_samples_were_asked_for_is_kept(made: Project, tmp_path: Path) -> None:
    target = copy_of(made, tmp_path)
    write_members(target, class_shares=(0.5, 0.25, 0.25))
    evaluate.run(target, "gan")
    folder = target.evaluation_folder("gan")
    entry = store.read_evaluation(folder)["candidates"][0]
    asked = store.read_asked(folder, entry["id"])
    assert asked is not None
    assert entry["classes"] == 3
    assert np.bincount(asked) / 100 == pytest.approx([0.5, 0.25, 0.25], abs=0.15)
    seed = derive_seed(3, "evaluate", entry["id"])
    sampler = CandidateSampler(load_generator(target.snapshot(entry["id"]))[0])
    # They are the images that come unasked, of the classes that were drawn for these.
    assert torch.equal(draw(sampler, 100, seed=seed, labels=torch.from_numpy(asked)), draw(sampler, 100, seed=seed))
    evaluate.run(made, "gan")
    unasked = store.read_evaluation(made.evaluation_folder("gan"))["candidates"][0]
    assert unasked["classes"] == 0
    assert store.read_asked(made.evaluation_folder("gan"), unasked["id"]) is None


def test_distances_are_logged_to_the_run_that_trained_the_member(made: Project) -> None:
    tracker = Tracker(made.root)
    with tracker.child("member", "gan/r0", key="k") as tracked:
        tracked.tag(chorus_member=tree_hash(made.family_folder("gan") / "r0"))
    evaluate.run(made, "gan")
    logged = tracker.client.get_metric_history(tracked.id, "val/fd16_classifier")
    entries = store.read_evaluation(made.evaluation_folder("gan"))["candidates"][:2]
    assert [(m.step, m.value) for m in logged] == [(e["nimg"], e["metrics"]["fd16_classifier"]) for e in entries]


def copy_of(made: Project, root: Path) -> Project:
    for folder in (made.prepared, made.reference, made.members):
        shutil.copytree(folder, root / folder.relative_to(made.root))
    return Project(root, made.params)


def test_a_generator_of_one_image_is_measured_and_named(made: Project, tmp_path: Path, capsys) -> None:
    target = copy_of(made, tmp_path)
    write_members(target, scale=0)
    evaluate.run(target, "gan")
    entry = store.read_evaluation(target.evaluation_folder("gan"))["candidates"][0]
    assert entry["warnings"] == ["gan/r0/000000512: all 100 images are equal"]
    assert np.isfinite(list(entry["metrics"].values())).all()
    assert "warning: gan/r0/000000512: all 100 images are equal" in capsys.readouterr().out


def test_a_generator_that_puts_out_no_numbers_is_refused_by_name(made: Project, tmp_path: Path) -> None:
    target = copy_of(made, tmp_path)
    write_members(target, scale=float("nan"))
    with pytest.raises(
        ChorusError, match=r"gan/r0/000000512: the generator puts out NaN .* `dvc repro --force train@gan`"
    ):
        evaluate.run(target, "gan")


def test_weights_that_do_not_fit_the_roster_are_refused(made: Project, tmp_path: Path) -> None:
    target = copy_of(made, tmp_path)
    roster = target.family_folder("gan") / "family.json"
    write_json(roster, read_json(roster) | {"members": ["r0"]})
    with pytest.raises(ChorusError, match=r"models/members/rung1/gan holds r0, params\.yaml asks for r0, r1:"):
        evaluate.run(target, "gan")
