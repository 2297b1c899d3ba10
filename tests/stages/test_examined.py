"""What the judge tells of an arm's classes and copies, on a small labelled project."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.dataset import load_split
from pipeline.evaluation import store
from pipeline.evaluation.extractors import load_extractors
from pipeline.params import parse_params
from pipeline.project import Project
from pipeline.stages import reference
from pipeline.stages._examined import Drawn, classes, copies
from tests.factories import structured_images, write_prepared

PARAMS = """
seed: 3
data: {source: digits, watch: unused, size: 8}
compute: {device: cpu, precision: fp32}
reference: {kimg: 2%s}
families: {gan: {architecture: mlp, kimg: 1}}
judge: {samples: 270}
"""
LABEL_FREE = ", selection: [selfsup-b], judges: [pixels]"
CPU = torch.device("cpu")


def project(root: Path, settings: str = "") -> Project:
    return Project(root, parse_params(PARAMS % settings))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    target = project(tmp_path_factory.mktemp("project"))
    write_prepared(target.prepared, n_train=600, n_gate=270)
    reference.run(target)
    return target


def drawn(target: Project, name: str, images: np.ndarray) -> Drawn:
    """What a generator of these images would leave."""
    judges = store.read_reference(target.reference)["judges"]
    tensor = torch.from_numpy(np.array(images))
    features = {
        judge: extractor.features(tensor) for judge, extractor in load_extractors(target.reference, judges).items()
    }
    return Drawn({"name": name, "kind": "member"}, tensor, features)


def test_a_class_that_is_never_drawn_is_seen(made: Project) -> None:
    two_of_three = structured_images(270, 8, 1, np.arange(270) % 3, seed=9)[np.arange(270) % 3 != 2]
    found = classes(made, [drawn(made, "gan/r0", two_of_three)])
    assert found is not None
    assert (found["judge"], found["names"], found["counts"]) == ("classifier-b", ["a", "b", "c"], [90, 90, 90])
    real, fake = found["rows"]
    assert (real["name"], fake["name"], fake["kind"]) == ("real images", "gan/r0", "member")
    assert min(real["coverage"]) > 0.5
    assert fake["coverage"][2] < 0.2 < min(fake["coverage"][:2])
    assert fake["share"][2] < 0.1
    assert sum(fake["share"]) == pytest.approx(1)
    assert real["share"] == pytest.approx([1 / 3] * 3, abs=0.05)


def test_an_empty_class_has_no_coverage(tmp_path: Path, made: Project) -> None:
    for folder in (made.prepared, made.reference):
        shutil.copytree(folder, tmp_path / folder.relative_to(made.root))
    target = project(tmp_path)
    store.write_labels(target.reference, "gate", np.arange(270) % 2)
    found = classes(target, [drawn(target, "gan/r0", load_split(target.prepared, "val").images)])
    assert found is not None
    assert found["counts"] == [135, 135, 0]
    assert [row["coverage"][2] for row in found["rows"]] == [None, None]


def test_a_judge_that_knows_no_classes_tells_no_shares(tmp_path: Path) -> None:
    target = project(tmp_path, LABEL_FREE)
    write_prepared(target.prepared)
    reference.run(target)
    found = classes(target, [drawn(target, "gan/r0", load_split(target.prepared, "val").images)])
    assert found is not None
    assert found["judge"] == "pixels"
    assert [row["share"] for row in found["rows"]] == [None, None]


def test_images_without_classes_have_no_table_of_them(tmp_path: Path) -> None:
    target = project(tmp_path, LABEL_FREE)
    write_prepared(target.prepared, classes=None)
    reference.run(target)
    assert classes(target, []) is None


def test_a_copier_is_caught_beside_fresh_images(made: Project) -> None:
    train = load_split(made.prepared, "train").images
    fresh = structured_images(180, 8, 1, np.arange(180) % 3, seed=17)
    rows = copies(made, CPU, [drawn(made, "gan/r0", train[100:160]), drawn(made, "best", fresh)])
    assert [(row["name"], row["kind"]) for row in rows] == [
        ("real images", "real"),
        ("gan/r0", "member"),
        ("best", "member"),
    ]
    real, copier, honest = rows
    assert (copier["authentic"], copier["in_train"]["value"], copier["closest_in_train"]["value"]) == (0, 1, 1)
    assert [row["suspicious"] for row in rows] == [False, True, False]
    assert copier["distance_ratio"] < 0.8
    for row in (real, honest):
        assert row["authentic"] > 0.3
        share = row["in_train"]
        assert share["value"] == pytest.approx(share["by_chance"], abs=3 * share["deviation"])
        assert row["distance_ratio"] == pytest.approx(1, abs=0.1)
    sheet = np.array(Image.open(made.report / "figures" / "nearest" / "gan-r0.png"))
    assert sheet.shape == (8 * 9 - 1, 4 * 17 - 1, 3)
    for column in (0, 17):
        np.testing.assert_array_equal(sheet[:8, column : column + 8], sheet[:8, column + 8 : column + 16])
