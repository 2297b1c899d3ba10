"""Strategies that look at images and train networks, from the fuse stage to the package that is registered."""

import shutil
from pathlib import Path

import pytest
import torch

from pipeline.files import read_json, tree_hash, write_json
from pipeline.fusion.samplers import draw
from pipeline.models._base import ModelConfig, architecture
from pipeline.packaged.folder import write_content
from pipeline.params import parse_params
from pipeline.project import Project
from pipeline.recipes import load_sampler
from pipeline.report import tables
from pipeline.stages import choose, evaluate, fuse, judge, reference
from pipeline.weights import save_snapshot
from tests.factories import write_prepared

PARAMS = """
seed: 3
data: {source: digits, watch: unused, size: 8}
compute: {device: cpu, precision: fp32}
reference: {kimg: 2}
families:
  gan: {architecture: mlp, kimg: 1, latent: 8, width: 8, replicas: 2}
evaluation: {samples: 100}
fusion: {strategies: [%s], stacking_kimg: 1, refine_steps: 2}
judge: {samples: 100}
"""
COMBINER = "combiners/%s"


def project(root: Path, strategies: str) -> Project:
    text = PARAMS % strategies
    (root / "params.yaml").write_text(text)
    return Project(root, parse_params(text))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of all stages before the fusion, of two members that nobody trained."""
    target = project(tmp_path_factory.mktemp("evaluated"), "best")
    write_prepared(target.prepared)
    reference.run(target)
    config = ModelConfig("mlp", 1, 8, 8, 8)
    made = architecture("mlp")
    assert made.discriminator is not None
    for seed, member in enumerate(("r0", "r1")):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            networks = {"generator": made.generator(config), "discriminator": made.discriminator(config)}
        save_snapshot(target.family_folder("gan") / member / "000001024", config, networks)
        write_json(target.family_folder("gan") / member / "history.json", [])
    write_json(target.family_folder("gan") / "family.json", {"schema": 1, "family": "gan", "members": ["r0", "r1"]})
    evaluate.run(target, "gan")
    return target.root


@pytest.fixture(scope="module", params=["stacking", "blending", "refine"])
def fused(request: pytest.FixtureRequest, evaluated: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("fused") / "project"
    shutil.copytree(evaluated, root)
    target = project(root, request.param)
    fuse.run(target)
    return target


@pytest.mark.parametrize("fused", ["stacking", "blending"], indirect=True)
def test_the_fusion_keeps_the_networks_that_its_winner_was_trained_with(fused: Project) -> None:
    table = read_json(fused.fused / "strategies.json")
    name = table["winner"]
    row = table["strategies"][0]
    combiner = COMBINER % name
    assert (row["recipe"]["kind"], row["recipe"]["companions"]["combiner"]) == ("stack", combiner)
    assert row["evidence"]["cost"] == 3  # two generators and the combiner
    assert row["evidence"]["real_images"] == {"stacking": 256, "blending": 48}[name]
    assert tree_hash(fused.fused / "members" / combiner) == tree_hash(fused.snapshot(combiner))


def test_the_package_draws_what_the_stage_measured(fused: Project, tmp_path: Path) -> None:
    recipe = read_json(fused.fused / "recipe.json")["recipe"]
    images = draw(load_sampler(recipe, fused.snapshot), 300, seed=5)
    choose.run(fused)
    write_content(fused.chosen, tmp_path / "content")
    packed = read_json(tmp_path / "content" / "model.json")["recipe"]
    assert torch.equal(draw(load_sampler(packed, (tmp_path / "content" / "members").joinpath), 300, seed=5), images)
    assert torch.equal(draw(load_sampler(packed, (tmp_path / "content" / "members").joinpath), 40, seed=5), images[:40])


def test_it_is_judged_and_described(fused: Project) -> None:
    choose.run(fused)
    judge.run(fused)
    metrics = read_json(fused.report / "metrics.json")
    assert [arm["name"] for arm in metrics["arms"]] == ["gan/r0", "gan/r1", metrics["winner"]]
    recipe = read_json(fused.fused / "recipe.json")["recipe"]
    assert sum(weight for _, weight in tables.shares(recipe)) == pytest.approx(1)
    wanted = {"stack": "a trained combiner", "refine": "walked 2 steps to where 2 discriminators"}
    assert wanted[recipe["kind"]] in tables.recipe_in_words(recipe)


def test_a_second_run_gives_the_same_files(fused: Project, tmp_path: Path) -> None:
    before = tree_hash(fused.fused)
    shutil.copytree(fused.root, tmp_path / "project")
    again = Project.load(tmp_path / "project")
    fuse.run(again)
    assert tree_hash(again.fused) == before
