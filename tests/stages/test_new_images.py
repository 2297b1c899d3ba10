"""New images of the folder: compared with those that were trained on, beyond chance and beyond the threshold."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ChorusError
from pipeline.params import parse_params
from pipeline.project import Project
from pipeline.stages import drift, ingest, prepare
from tests.factories import structured_images

PARAMS = """\
data:
  source: folder
  root: images
  watch: images
  size: 16
  splits: {train: 0.7, val: 0.1, gate: 0.1, test: 0.1}
families: {mlp: {architecture: mlp, kimg: 1}}
flow: {drift: {images: 50}}
"""


def draw(folder: Path, name: str, count: int, seed: int, brightness: float = 1.0) -> None:
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(structured_images(count, 16, 1, np.arange(count) % 3, seed)):
        Image.fromarray((image[0] * brightness).astype(np.uint8)).save(folder / f"{name}-{number}.png")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    draw(tmp_path / "images", "old", 300, seed=1)
    project = Project(tmp_path, parse_params(PARAMS))
    ingest.run(project)
    prepare.run(project)
    return project


def test_images_are_new_until_they_are_read_and_drift_when_they_look_otherwise(project: Project) -> None:
    images = project.root / "images"
    assert drift.look(project)["said"] == "0 new images, too few to tell"
    draw(images, "same", 120, seed=2)
    (images / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    same = drift.look(project)
    assert (same["new"], same["drifted"]) == (120, False)
    assert same["distance"] < same["chance"] + 3 * same["deviation"]

    draw(images, "dark", 120, seed=3, brightness=0.5)
    dark = drift.look(project)
    assert (dark["new"], dark["drifted"]) == (240, True)
    assert dark["distance"] > 5 * dark["chance"]
    assert dark["reference"] == same["reference"]
    tolerant = Project(project.root, parse_params(PARAMS.replace("images: 50", "images: 50, threshold: 9")))
    assert not drift.look(tolerant)["drifted"]

    ingest.run(project)
    prepare.run(project)
    after = drift.look(project)
    assert (after["new"], after["drifted"]) == (0, False)
    assert after["reference"] != dark["reference"]


def test_parameters_that_were_changed_since_do_not_matter(project: Project) -> None:
    draw(project.root / "images", "dark", 60, seed=3, brightness=0.5)
    found = drift.look(project)
    changed = PARAMS.replace("size: 16", "size: 32").replace("watch: images", "watch: images\n  channels: 3")
    assert drift.look(Project(project.root, parse_params(changed))) == found


def test_the_fewest_images_that_can_be_told_from_chance(project: Project) -> None:
    draw(project.root / "images", "same", 4, seed=2)
    with pytest.raises(ChorusError, match=r"flow\.drift\.images = 3: .* greater than or equal to 4"):
        parse_params(PARAMS.replace("images: 50", "images: 3"))
    found = drift.look(Project(project.root, parse_params(PARAMS.replace("images: 50", "images: 4"))))
    assert (found["new"], np.isfinite(found["chance"])) == (4, True)


def test_named_sources_have_no_new_images(tmp_path: Path) -> None:
    text = PARAMS.replace("source: folder", "source: digits")
    with pytest.raises(ChorusError, match=r"data\.source = 'digits'"):
        drift.look(Project(tmp_path, parse_params(text)))


def test_nothing_was_prepared_yet(tmp_path: Path) -> None:
    with pytest.raises(ChorusError, match=r"manifest\.json is missing"):
        drift.look(Project(tmp_path, parse_params(PARAMS)))
