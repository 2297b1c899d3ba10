"""Selection inside the fuse stage: what enters, what is told, and features that nobody can use."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import ChorusError
from pipeline.files import read_json, write_array, write_json
from pipeline.fusion.strategies._base import _REGISTRY, Fusion, Problem, Snapshot
from pipeline.models._base import ModelConfig, architecture
from pipeline.params import parse_params
from pipeline.project import Project
from pipeline.stages import evaluate, fuse, reference
from pipeline.weights import load_generator, save_snapshot
from tests.factories import write_prepared

PARAMS = """
seed: 3
data: {source: digits, watch: unused, size: 8}
compute: {device: cpu, precision: fp32}
reference: {kimg: 1}
families:
  gan: {architecture: mlp, kimg: 1, latent: 8, width: 8, replicas: 2}
evaluation: {samples: 100}
fusion: {strategies: [uniform, weighted_kid, greedy], select: {rule: top, count: 1}}
"""


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The files of all stages before the fusion, of two members that nobody trained."""
    target = Project(tmp_path_factory.mktemp("evaluated"), parse_params(PARAMS))
    (target.root / "params.yaml").write_text(PARAMS)
    write_prepared(target.prepared)
    reference.run(target)
    config = ModelConfig("mlp", 1, 8, 8, 8)
    for seed, member in enumerate(("r0", "r1")):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = architecture("mlp").generator(config)
        save_snapshot(target.family_folder("gan") / member / "000001024", config, {"generator": network})
        write_json(target.family_folder("gan") / member / "history.json", [])
    write_json(target.family_folder("gan") / "family.json", {"schema": 1, "family": "gan", "members": ["r0", "r1"]})
    evaluate.run(target, "gan")
    return target


def test_what_is_left_out_takes_no_part_and_is_judged_all_the_same(
    evaluated: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    fuse.run(evaluated)
    assert "fuse  rule top keeps 1 of 2 candidates" in capsys.readouterr().out
    table = read_json(evaluated.fused / "strategies.json")
    (kept,) = [verdict["id"] for verdict in table["selection"]["verdicts"] if verdict["kept"]]
    assert len(table["selection"]["verdicts"]) == len(table["members"]) == 2
    assert [row["evidence"]["weights"] for row in table["strategies"]] == [{kept: 1.0}] * 3
    assert table["diversity"]["members"] == [kept]
    assert [row["name"] for row in table["diversity"]["mixtures"]] == ["uniform", "weighted_kid", "greedy"]
    assert all(row["ambiguity"] == pytest.approx(0, abs=1e-9) for row in table["diversity"]["mixtures"])


def test_a_strategy_that_draws_no_images_is_skipped_and_the_others_go_on(
    evaluated: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(evaluated.root, tmp_path / "copy")
    target = Project(tmp_path / "copy", evaluated.params)

    def broken(problem: Problem) -> Fusion:
        source = problem.ranked()[0].id
        generator, _ = load_generator(target.snapshot(source))
        for weight in generator.parameters():
            weight.fill_(float("nan"))
        made = Snapshot(source, generator)
        return Fusion({"kind": "candidate", "id": "soup/made/1"}, {"weights": {source: 1.0}}, {}, {"soup/made/1": made})

    monkeypatch.setitem(_REGISTRY, "weighted_kid", broken)
    fuse.run(target)
    table = read_json(target.fused / "strategies.json")
    uniform, soup, greedy = table["strategies"]
    assert soup == {
        "name": "weighted_kid",
        "skipped": "it draws no images: the generator puts out NaN or infinity: its weights are damaged",
    }
    assert table["winner"] in {uniform["name"], greedy["name"]}
    assert all("why" in row for row in (uniform, greedy))


def test_an_image_that_is_no_number_while_a_strategy_is_fitted_costs_that_strategy_alone(
    evaluated: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(evaluated.root, tmp_path / "copy")
    target = Project(tmp_path / "copy", evaluated.params)

    def overflowing(problem: Problem) -> Fusion:
        raise ChorusError("the generator puts out NaN or infinity: its weights are damaged")

    monkeypatch.setitem(_REGISTRY, "weighted_kid", overflowing)
    fuse.run(target)
    rows = read_json(target.fused / "strategies.json")["strategies"]
    assert ["skipped" in row for row in rows] == [False, True, False]


def test_features_that_are_not_finite_are_refused_with_the_candidates_name(evaluated: Project, tmp_path: Path) -> None:
    shutil.copytree(evaluated.root, tmp_path / "copy")
    target = Project(tmp_path / "copy", evaluated.params)
    (path,) = target.evaluation_folder("gan").glob("r1/*/selfsup.npy")
    broken = np.array(np.load(path))
    broken[7, 3] = np.nan
    path.unlink()
    write_array(path, broken)
    with pytest.raises(ChorusError, match="gan/r1/000001024: features hold NaN"):
        fuse.run(target)
