"""Averages of weights from the fuse stage to the package that is registered."""

import shutil
from pathlib import Path

import pytest
import torch

from pipeline.files import file_hash, read_json, tree_hash, write_json
from pipeline.fusion.samplers import draw
from pipeline.models._base import ModelConfig, build_discriminator, build_generator
from pipeline.packaged.folder import write_content
from pipeline.params import parse_params
from pipeline.project import Project
from pipeline.recipes import load_sampler
from pipeline.report import tables
from pipeline.stages import choose, evaluate, fuse, judge, reference
from pipeline.weights import save_profiles, save_snapshot
from tests.factories import write_prepared

PARAMS = """
seed: 3
data: {source: digits, watch: unused, size: 8}
compute: {device: cpu, precision: fp32}
reference: {kimg: 2}
families:
  gan: {architecture: dcgan, kimg: 2, latent: 8, width: 4, snapshots: 2, ema_profiles: true}
evaluation: {samples: 100}
fusion: {strategies: [soup]}
judge: {samples: 100}
"""
CONFIG = ModelConfig("dcgan", 1, 8, 8, 4)
SNAPSHOTS = ("000001024", "000002048")


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after the fusion of one member with two snapshots that nobody trained."""
    root = tmp_path_factory.mktemp("fused")
    (root / "params.yaml").write_text(PARAMS)
    target = Project(root, parse_params(PARAMS))
    write_prepared(target.prepared)
    reference.run(target)
    member = target.family_folder("gan") / "r0"
    torch.manual_seed(0)
    for snapshot in SNAPSHOTS:
        discriminator = build_discriminator(CONFIG)
        assert discriminator is not None
        networks = {"generator": build_generator(CONFIG), "discriminator": discriminator}
        save_snapshot(member / snapshot, CONFIG, networks)
        save_profiles(member / snapshot, {width: build_generator(CONFIG) for width in (0.05, 0.1)})
    write_json(member / "history.json", [])
    write_json(member.parent / "family.json", {"schema": 1, "family": "gan", "members": ["r0"]})
    evaluate.run(target, "gan")
    fuse.run(target)
    return target


def test_the_average_is_kept_as_a_snapshot_with_its_source_s_discriminator(fused: Project) -> None:
    recipe = read_json(fused.fused / "recipe.json")["recipe"]
    name = recipe["id"]
    assert recipe == {"kind": "candidate", "id": name}
    about = read_json(fused.fused / "strategies.json")["strategies"][0]["evidence"]["averages"][name]
    folder, source = fused.snapshot(name), fused.snapshot(about["source"])
    assert folder == fused.fused / name
    assert file_hash(folder / "discriminator.safetensors") == file_hash(source / "discriminator.safetensors")
    assert file_hash(folder / "config.json") == file_hash(source / "config.json")
    copied = fused.fused / "members" / name
    assert sorted(path.name for path in copied.iterdir()) == ["config.json", "generator.safetensors"]


def test_it_is_chosen_judged_and_packaged_as_any_candidate(fused: Project, tmp_path: Path) -> None:
    recipe = read_json(fused.fused / "recipe.json")["recipe"]
    images = draw(load_sampler(recipe, fused.snapshot), 60, seed=5)
    choose.run(fused)
    judge.run(fused)
    arms = {arm["name"]: arm for arm in read_json(fused.report / "metrics.json")["arms"]}
    assert arms["soup"]["cost"] == 1
    assert "average along a training" in tables.recipe_in_words(recipe)
    write_content(fused.chosen, tmp_path / "content")
    packed = read_json(tmp_path / "content" / "model.json")["recipe"]
    assert torch.equal(draw(load_sampler(packed, (tmp_path / "content" / "members").joinpath), 60, seed=5), images)


def test_a_second_run_gives_the_same_files(fused: Project, tmp_path: Path) -> None:
    before = tree_hash(fused.fused)
    shutil.copytree(fused.root, tmp_path / "project")
    again = Project.load(tmp_path / "project")
    fuse.run(again)
    assert tree_hash(again.fused) == before
