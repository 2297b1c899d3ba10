"""What the judge writes of fresh classifiers, on small folders and samplers of real images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.compute import set_up
from pipeline.data.dataset import load_split, read_manifest
from pipeline.evaluation.networks import to_float
from pipeline.fusion.samplers import BLOCK, Sampler, indexed
from pipeline.params import parse_params
from pipeline.project import Project
from pipeline.randomness import generator
from pipeline.stages._classifiers import classifications, compared, two_samples
from tests.factories import structured_images, write_prepared

PARAMS = """
data: {source: digits, watch: unused, size: 8}
compute: {device: cpu, precision: fp32}
families: {gan: {architecture: mlp, kimg: 1}}
judge: {samples: 150}
"""
KIMG = 3.0
ARM = {"name": "weighted", "kind": "strategy"}


class Copies(Sampler):
    """Draws stored images with replacement; of an asked class where they are stored with classes."""

    cost = 0.0

    def __init__(self, images: np.ndarray, labels: np.ndarray | None = None) -> None:
        self.images, self.labels = to_float(torch.from_numpy(np.array(images))), labels
        self.classes = 0 if labels is None else int(labels.max()) + 1

    def at(self, rows: Tensor, seed: int, labels: Tensor | None = None) -> Tensor:
        numbers = indexed(rows, lambda block: torch.rand(BLOCK, generator=generator(seed, "copies", block))).tolist()
        asked = [None] * len(rows) if labels is None else labels.tolist()
        return self.images[[self.row(u, label) for u, label in zip(numbers, asked, strict=True)]]

    def row(self, u: float, label: int | None) -> int:
        if label is None or self.labels is None:
            return int(u * len(self.images))
        of_class = np.flatnonzero(self.labels == label)
        return int(of_class[int(u * len(of_class))])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A labelled data set whose `test` split is not there to be read."""
    project = Project(tmp_path_factory.mktemp("project"), parse_params(PARAMS))
    write_prepared(project.prepared, n_train=400, n_val=160, n_gate=120)
    for file in project.prepared.glob("test*"):
        file.unlink()
    return project


def unseen(n: int, seed: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Return images of the distribution of the data set that are not in it, and their classes."""
    labels = np.arange(n) % 3
    return structured_images(n, 8, 1, labels, seed), labels


def test_a_row_an_arm_and_one_of_real_images(made: Project, capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = unseen(3000)
    arms = [(ARM, Copies(images)), ({"name": "gan/r0", "kind": "member"}, Copies(images[labels > 0]))]
    rows = two_samples(made, set_up(made.params.compute), arms, KIMG)
    assert [(row["name"], row["kind"]) for row in rows] == [
        ("weighted", "strategy"),
        ("gan/r0", "member"),
        ("real images", "real"),
    ]
    assert {row["images"] for row in rows} == {240}
    faithful, dropped, real = rows
    for row in (faithful, real):
        assert row["low"] < 0.5 < row["high"]
        assert row["p_value"] > 0.01
    assert dropped["low"] > 0.5
    assert dropped["p_value"] < 1e-3
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 3
    assert "a fresh classifier tells" in printed[0]


def test_no_more_images_are_drawn_than_the_judge_draws(made: Project, tmp_path: Path) -> None:
    # 64 of val and of gate; train holds fewer than 128 and is divided between learning and asking.
    project = Project(tmp_path, parse_params(PARAMS.replace("150", "64")))
    write_prepared(project.prepared, n_train=40)
    rows = two_samples(project, set_up(project.params.compute), [(ARM, Copies(unseen(500)[0]))], 0.1)
    assert [row["images"] for row in rows] == [128, 40]


def test_a_sampler_of_real_images_teaches_their_classes(made: Project) -> None:
    train = load_split(made.prepared, "train")
    assert train.labels is not None
    arms = [(ARM, Copies(train.images, train.labels)), ({"name": "gan/r0", "kind": "member"}, Copies(train.images))]
    found = classifications(made, set_up(made.params.compute), arms, KIMG)
    assert (found["images"], found["held_out"]) == (400, 120)
    taught, skipped = found["rows"]
    assert found["real"]["share"] > 0.9
    assert taught["generated"]["share"] == pytest.approx(found["real"]["share"], abs=0.06)
    assert taught["gain"]["low"] <= 0 <= taught["gain"]["high"]
    assert skipped == {
        "name": "gan/r0",
        "kind": "member",
        "skipped": "its members are unconditional: it cannot be asked for a class",
    }


def test_who_lacks_a_class_has_no_part_in_it_and_the_others_go_on(made: Project) -> None:
    train = load_split(made.prepared, "train")
    assert train.labels is not None
    lacking = Copies(train.images, train.labels)
    lacking.lacking = (1,)
    arms = [(ARM, lacking), ({"name": "gan/r0", "kind": "member"}, Copies(train.images, train.labels))]
    skipped, taught = classifications(made, set_up(made.params.compute), arms, 0.1)["rows"]
    (_, name, _) = read_manifest(made.prepared)["classes"]
    assert skipped == {**ARM, "skipped": f"no member draws {name}"}
    assert taught["generated"]["share"] > 0.8


def test_images_without_classes_teach_none(tmp_path: Path) -> None:
    project = Project(tmp_path, parse_params(PARAMS))
    write_prepared(project.prepared, classes=None)
    found = classifications(project, set_up(project.params.compute), [(ARM, Copies(unseen(50)[0]))], KIMG)
    assert found == {"rows": [{**ARM, "skipped": "the images have no classes"}]}


def test_what_is_shipped_is_compared_with_the_best_member() -> None:
    member = {"name": "gan/r0", "kind": "member", "recipe": {"kind": "candidate", "id": "gan/r0/1"}}
    mixture = {"name": "weighted", "kind": "strategy", "recipe": {"kind": "mixture", "parts": [], "weights": []}}
    best = {"name": "best", "kind": "strategy", "recipe": member["recipe"]}
    arms = [member, mixture, best]
    assert compared(arms, {"kind": "strategy", "name": "weighted"}, "gan/r0") == [mixture, member]
    # One recipe is not asked about twice.
    assert compared(arms, {"kind": "strategy", "name": "best"}, "gan/r0") == [best]
