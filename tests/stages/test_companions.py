"""Strategies that look at images and train networks, from the fuse stage to the package that is registered."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.__main__ import main
from pipeline.data.dataset import load_split
from pipeline.files import read_json, tree_hash, write_json
from pipeline.fusion.critic import RULES
from pipeline.fusion.samplers import draw
from pipeline.models._base import ModelConfig, architecture
from pipeline.packaged.folder import write_content
from pipeline.params import parse_params
from pipeline.project import Project
from pipeline.recipes import load_critic, load_sampler
from pipeline.report import tables
from pipeline.stages import choose, evaluate, fuse, judge, reference
from pipeline.stages._critic import write_critic
from pipeline.weights import save_snapshot
from tests.factories import write_prepared
from tests.fusion.test_strategies import problem

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
    assert row["evidence"]["cost"] > 3  # two generators and the combiner, which is larger than such small ones
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


@pytest.mark.parametrize("fused", ["refine"], indirect=True)
def test_the_critic_goes_with_the_model_and_is_measured(fused: Project, tmp_path: Path) -> None:
    content = read_json(fused.fused / "critic" / "critic.json")
    assert [entry["id"] for entry in content["critics"]] == ["gan/r0/000001024", "gan/r1/000001024"]
    assert content["auc"][content["rule"]] == max(content["auc"].values())
    choose.run(fused)
    assert tree_hash(fused.chosen / "critic") == tree_hash(fused.fused / "critic")
    write_content(fused.chosen, tmp_path / "content")
    images = torch.from_numpy(np.array(load_split(fused.prepared, "gate").images))
    scores = [
        load_critic(folder / "critic")[0].scores(images, "vote") for folder in (fused.fused, tmp_path / "content")
    ]
    assert torch.equal(*scores)
    judge.run(fused)
    found = read_json(fused.report / "metrics.json")["critic"]
    assert (found["rule"], found["critics"]) == (content["rule"], 2)
    assert [row["name"] for row in found["auc"]] == ["gan/r0", "gan/r1", "refine"]
    assert all(0 <= row[rule] <= 1 for row in found["auc"] for rule in RULES)


@pytest.mark.parametrize("fused", ["refine"], indirect=True)
def test_a_folder_of_images_is_scored(
    fused: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    choose.run(fused)
    gate = np.array(load_split(fused.prepared, "gate").images[:3])
    images = tmp_path / "images"
    (images / "below").mkdir(parents=True)
    names = ("a.png", "b\x1b[2J,.png", "below/c\n\udce9.png")
    for name, pixels in zip(names, gate, strict=True):
        Image.fromarray(pixels[0]).save(images / name)
    (images / "broken.png").write_bytes(b"nothing")
    (images / "notes.txt").write_text("no image")
    (images / "unreadable.png").symlink_to("/proc/self/mem")
    monkeypatch.chdir(fused.root)
    assert main(["score", str(images), "--out", str(tmp_path / "scores.csv")]) == 0
    said = capsys.readouterr().err
    assert "broken.png: not a readable" in said
    assert "unreadable.png: [Errno 5]" in said
    critic, rule = load_critic(fused.chosen / "critic")
    scores = critic.scores(torch.from_numpy(gate), rule).tolist()
    shown = ("a.png", '"b\\x1b[2J,.png"', "below/c\\n\\xe9.png")
    lines = [f"{score:.4f},{name}" for score, name in zip(scores, shown, strict=True)]
    assert (tmp_path / "scores.csv").read_text().splitlines() == ["score,file", *lines]
    assert main(["score", str(images)]) == 0
    assert capsys.readouterr().out.splitlines() == ["score,file", *lines]
    assert main(["score", str(tmp_path / "nowhere")]) == 2
    assert "holds no image that can be scored" in capsys.readouterr().err
    for out, words in ((tmp_path, "is a folder"), (tmp_path / "scores.csv" / "below", "cannot be written")):
        assert main(["score", str(images), "--out", str(out)]) == 2
        captured = capsys.readouterr()
        assert words in captured.err
        assert "broken.png" not in captured.err  # nothing was scored in vain


def test_without_discriminators_there_is_no_critic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = project(tmp_path, "best")
    write_critic(target, problem(critics=False))
    assert "no member has a discriminator" in capsys.readouterr().out
    assert not target.fused.exists()
    monkeypatch.chdir(tmp_path)
    assert main(["score", str(tmp_path)]) == 2
    assert "no member has a discriminator" in capsys.readouterr().err
