"""The strategies `ratio` and `latent_ratio` from the fuse stage to the package that is registered."""

import shutil
from pathlib import Path

import pytest
import torch

from pipeline.files import read_json, tree_hash, write_json
from pipeline.fusion.rejection import RejectionSampler
from pipeline.fusion.samplers import draw
from pipeline.models._base import ModelConfig, architecture
from pipeline.packaged.folder import write_content
from pipeline.params import parse_params
from pipeline.project import Project
from pipeline.recipes import load_sampler
from pipeline.report import tables
from pipeline.stages import choose, evaluate, fuse, reference
from pipeline.weights import save_snapshot
from tests.factories import write_prepared

PARAMS = """
seed: 3
data: {source: digits, watch: unused, size: 8}
compute: {device: cpu, precision: fp32}
reference: {kimg: 2}
families:
  gan: {architecture: mlp, kimg: 1, latent: 8, width: 8}
evaluation: {samples: 600}
fusion: {strategies: [weighted, ratio, latent_ratio], strategy: ratio, min_acceptance: 0.2}
"""


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with one member that nobody trained, after the fuse stage."""
    root = tmp_path_factory.mktemp("project")
    (root / "params.yaml").write_text(PARAMS)
    target = Project(root, parse_params(PARAMS))
    write_prepared(target.prepared, n_val=600)
    reference.run(target)
    config = ModelConfig("mlp", 1, 8, 8, 8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = architecture("mlp").generator(config)
        # Untrained it draws next to one image; this lets it draw many.
        for parameter in network.parameters():
            parameter.data.mul_(4)
    save_snapshot(target.family_folder("gan") / "r0" / "000001024", config, {"generator": network})
    write_json(target.family_folder("gan") / "r0" / "history.json", [])
    write_json(target.family_folder("gan") / "family.json", {"schema": 1, "family": "gan", "members": ["r0"]})
    evaluate.run(target, "gan")
    fuse.run(target)
    return target


def row(fused: Project, name: str) -> dict:
    return next(row for row in read_json(fused.fused / "strategies.json")["strategies"] if row["name"] == name)


def test_it_is_nearer_than_the_mixture_on_the_half_that_chooses(fused: Project) -> None:
    found, plain = row(fused, "ratio"), row(fused, "weighted")
    assert "skipped" not in found, found
    assert found["evidence"]["choose"] < plain["evidence"]["choose"]
    assert found["recipe"]["acceptance"] >= 0.2
    # Both extractors cost far more than this generator, and each is read once for every draw.
    assert found["evidence"]["cost"] > 3 / found["recipe"]["acceptance"]


def test_told_from_latents_it_is_nearer_too_and_costs_less(fused: Project) -> None:
    found, plain, whole = (row(fused, name) for name in ("latent_ratio", "weighted", "ratio"))
    assert "skipped" not in found, found
    assert whole["evidence"]["choose"] < found["evidence"]["choose"] < plain["evidence"]["choose"]
    assert found["evidence"]["cost"] < whole["evidence"]["cost"] / 3
    share = found["recipe"]["acceptance"]
    assert f"it keeps {share:.0%}, the likelier" in tables.recipe_in_words(found["recipe"])
    assert tables.shares(found["recipe"]) == [("gan/r0/000001024", 1.0)]


def test_fresh_images_are_accepted_at_the_stated_rate(fused: Project) -> None:
    recipe = read_json(fused.fused / "recipe.json")["recipe"]
    sampler = load_sampler(recipe, fused.snapshot)
    assert isinstance(sampler, RejectionSampler)
    rated = sampler.ratio(sampler.source.at(torch.arange(4000), 8))
    assert rated.clamp(max=0).exp().mean().item() == pytest.approx(recipe["acceptance"], abs=0.05)


def test_the_package_draws_what_the_stage_measured(fused: Project, tmp_path: Path) -> None:
    recipe = read_json(fused.fused / "recipe.json")["recipe"]
    images = draw(load_sampler(recipe, fused.snapshot), 300, seed=5)
    choose.run(fused)
    write_content(fused.chosen, tmp_path / "content")
    shutil.rmtree(fused.chosen)
    packed = read_json(tmp_path / "content" / "model.json")["recipe"]
    find = (tmp_path / "content" / "members").joinpath
    assert torch.equal(draw(load_sampler(packed, find), 300, seed=5), images)
    assert set(packed["companions"]) == {"ratio", "classifier-maps", "selfsup", "pixels"}
    assert tree_hash(find("extractors/selfsup")) == tree_hash(fused.reference / "extractors" / "selfsup")


def test_the_report_says_how_an_image_is_made(fused: Project) -> None:
    recipe = read_json(fused.fused / "recipe.json")["recipe"]
    assert f"{recipe['acceptance']:.0%} are accepted" in tables.recipe_in_words(recipe)
    assert [name for name, _ in tables.shares(recipe)] == ["gan/r0/000001024"]


def test_a_second_run_gives_the_same_files(fused: Project, tmp_path: Path) -> None:
    before = tree_hash(fused.fused)
    shutil.copytree(fused.root, tmp_path / "project")
    again = Project.load(tmp_path / "project")
    fuse.run(again)
    assert tree_hash(again.fused) == before
