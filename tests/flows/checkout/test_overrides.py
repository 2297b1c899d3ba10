"""Experiments: what their parameters become, and that the clone stays as it was."""

import os
from pathlib import Path

import pytest
import yaml

from flows.checkout.overrides import LONGEST, experiment, name_of, reduced, under_another_name
from flows.retrain import main
from pipeline.errors import ChorusError
from pipeline.params import parse_params
from pipeline.project import Project
from tests.stub_checkout import call, dvc, order

TEXT = (Path(__file__).parents[3] / "params.yaml").read_text()


def test_a_few_families_and_a_part_of_their_budgets() -> None:
    params = parse_params(reduced(TEXT, ["vae", "mlp"], 0.5))
    assert {name: family.kimg for name, family in params.families.items()} == {"mlp": 60, "vae": 100}
    assert params.register_.model == "chorus"
    assert parse_params(reduced(TEXT, [], 1)) == parse_params(TEXT)


def test_of_a_shared_budget_each_familys_part_stays() -> None:
    text = TEXT.replace("budget: null", "budget: {tflop: 500, families: 5}")
    text = text.replace("students: {}", "students: {small: {architecture: dcgan, kimg: 300}}")
    params = parse_params(reduced(text, ["vae", "mlp"], 0.5))
    assert params.budget is not None
    assert (params.budget.tflop, params.budget.families) == (100, 2)
    assert params.students["small"].kimg == 150


def test_an_experiments_model_has_a_name_of_its_own() -> None:
    once = under_another_name(TEXT)
    assert parse_params(once).register_.model == "chorus-experiment"
    assert under_another_name(once) == once


def test_names_of_folders() -> None:
    assert name_of([], 0.25) == "all-x0.25"
    assert name_of(["vae", "mlp"], 1) == name_of(["mlp", "vae"], 1) == "mlp+vae-x1"
    many = [f"a-rather-long-name-{number}" for number in range(9)]
    assert name_of(many, 1).startswith("9-families-")
    assert len(name_of(many, 1)) < LONGEST
    assert name_of(many, 1) != name_of(many, 2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--families", "x,dcgam"], "no family 'dcgam'; it has: x, y"),
        (["--budget-factor", "0"], "budget factor 0: a number above 0"),
        (["--budget-factor", "nan"], "budget factor nan: a number above 0"),
        (["--plan", "--families", "x"], "leave --families"),
    ],
)
def test_bad_overrides(
    options: list[str], said: str, done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(done)
    assert main(options) == 2
    assert said in capsys.readouterr().err
    assert not (done / ".chorus" / "experiments").exists()


@pytest.mark.slow
def test_a_worktree_shares_what_was_computed_and_leaves_the_clone_alone(done: Path, tracked: str) -> None:
    (done / "source.txt").rename(done / "images.txt")
    for name in ("params.yaml", "dvc.yaml"):
        (done / name).write_text((done / name).read_text().replace("source.txt", "images.txt"))
    (done / ".gitignore").write_text((done / ".gitignore").read_text() + "/images.txt\n")
    dvc(done, "repro", "-q")
    call(done, "git", "add", "-A")
    call(done, "git", "commit", "-qm", "Images are no part of the repository")
    before, ran = (done / "dvc.lock").read_text(), order(done)
    said: list[str] = []
    for factor, again in ((1.0, []), (0.5, ["x", "y"]), (0.5, [])):
        with experiment(Project.load(done), [], factor, said.append) as inside:
            assert os.environ["MLFLOW_TRACKING_URI"] == tracked
            assert inside.root == done / ".chorus" / "experiments" / f"all-x{factor:g}"
            assert inside.params.families["x"].kimg == factor
            worked = order(inside.root)
            dvc(inside.root, "repro", "-q")
            new = order(inside.root)[len(worked) :]
            assert sorted(name for name, what in new if what == "begins") == again
            assert (inside.root / "registered.txt").read_text() == (done / "registered.txt").read_text()
    assert (done / "dvc.lock").read_text() == before
    assert order(done) == ran
    assert call(done, "git", "status", "--porcelain") == ""
    assert yaml.safe_load((done / "params.yaml").read_text())["families"]["x"]["kimg"] == 1
    assert "chorus-experiment" in said[0]


def test_an_experiment_waits_for_the_clones_own_run(
    done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows.checkout.exclusive import alone

    monkeypatch.chdir(done)
    with alone(done, "refuse", print):
        assert main(["--families", "x"]) == 2
    assert f"taken by process {os.getpid()}" in capsys.readouterr().err


def test_a_factor_is_refused_by_name() -> None:
    with pytest.raises(ChorusError, match="budget factor -1"):
        reduced(TEXT, [], -1)
