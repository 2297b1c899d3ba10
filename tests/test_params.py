import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import pipeline.models
from pipeline.errors import ChorusError
from pipeline.params import Family, Params, conflict, missing_sections, parse_params, read_params, registered

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "params.yaml").read_text()


def changed(path, value):
    """The default parameters as text, with one key set (or removed, for `...`)."""
    content = yaml.safe_load(TEXT)
    *parents, last = path.split(".")
    section = content
    for key in parents:
        section = section[key]
    if value is ...:
        del section[last]
    else:
        section[last] = value
    return yaml.safe_dump(content)


@pytest.mark.parametrize(
    ("path", "value", "parts"),
    [
        ("families.mlp.lr", -1, ["families.mlp.lr = -1", "greater than 0"]),
        ("families.mlp.learnrate", 1, ["families.mlp.learnrate", "unknown key", "lr,"]),
        ("families.mlp.architecture", "dcgna", ["families.mlp", "unknown architecture 'dcgna'", "dcgan"]),
        ("families.mlp.loss", "hing", ["families.mlp.loss = 'hing'", "'hinge'"]),
        ("families.mlp.kl_weight", 1.0, ["families.mlp", "'kl_weight'", "variational"]),
        ("families.vae.loss", "hinge", ["families.vae", "adversarial"]),
        ("families.mlp.regularisers", {"every": 4}, ["families.mlp.regularisers", "there is none", "r1"]),
        ("families.dcgan-hinge.label_smoothing", 0.1, ["families.dcgan-hinge", "cross-entropy", "not hinge"]),
        ("families.dcgan-hinge.scheme", "joint", ["families.dcgan-hinge", "nonsaturating, not hinge"]),
        ("families.mlp.discriminator_weights", "softmax", ["families.mlp", "and there is one"]),
        ("families.mlp.replicas", 0, ["families.mlp.replicas = 0", "greater than or equal to 1"]),
        ("families.mlp.scheme", "stacking", ["families.mlp.scheme = 'stacking'", "'boosting'"]),
        ("families.dcgan-hinge.scheme", "boosting", ["families.dcgan-hinge", "'boosting'", "'replicas' to 2"]),
        (
            "families.vae",
            {"architecture": "vae", "kimg": 1, "scheme": "cascade", "replicas": 2},
            ["families.vae", "'cascade'", "not for 'vae'"],
        ),
        ("families.mlp.warm_start", 7.5, ["families.mlp.warm_start = 7.5", "the source alone"]),
        ("families.mlp.warm_start", {"source": "champion"}, ["families.mlp.warm_start", "pipeline pin"]),
        ("families.mlp.kimg", "many", ["families.mlp.kimg = 'many'", "number"]),
        ("families.mlp.lr", "1e-3", ["families.mlp.lr = '1e-3'", "takes this for text; write 0.001"]),
        ("families.mlp.lr", "1e999999999", ["families.mlp.lr", "valid number"]),
        ("fusion.min_acceptance", True, ["fusion.min_acceptance = True", "number"]),
        ("families.mlp.batch", "64", ["families.mlp.batch = '64'", "write 64"]),
        ("families.mlp.architecture", ..., ["families.mlp.architecture", "missing"]),
        ("families.Big Name", {"architecture": "mlp", "kimg": 1}, ["families.Big Name", "pattern"]),
        ("families", {}, ["families", "at least 1"]),
        ("students", {"mlp": {"architecture": "mlp", "kimg": 1}}, ["'mlp' names a student and a family"]),
        ("students", {"best": {"architecture": "mlp", "kimg": 1}}, ["'best' names a student and a family or strategy"]),
        ("students", {"a": {"architecture": "mlp"}}, ["students.a", "'kimg' is missing"]),
        ("students", {"a": {"architecture": "mlp", "kimg": 1, "replicas": 2}}, ["one network", "leave 'replicas' out"]),
        ("students", {"a": {"architecture": "mlp", "kimg": 1, "ema_profiles": True}}, ["leave 'ema_profiles' out"]),
        ("students", {"a": {"architecture": "mlp", "kimg": 1, "lrr": 2}}, ["students.a.lrr", "unknown key", "samples"]),
        ("choose.tolerance", -0.1, ["choose.tolerance = -0.1", "greater than or equal to 0"]),
        ("data.size", 33, ["data.size = 33", "32"]),
        ("data.sources", "x", ["data.sources", "unknown key", "source"]),
        ("data.source", "folder", ["data", "'root'"]),
        ("data.splits.train", 0.9, ["data.splits", "add up to 1.4"]),
        ("reference.judges", ["classifer"], ["unknown extractor 'classifer'", "classifier"]),
        ("reference.judges", ["selfsup", "selfsup"], ["stands twice", "judges: selfsup, selfsup"]),
        ("reference.selection", ["classifier-b", "selfsup", "selfsup-b", "pixels"], ["no judge is left"]),
        ("reference.weights", {"pixels": "a"}, ["'pixels' in weights", "inception-v3-compat"]),
        ("families.mlp.betas", [0.5, 1.0], ["families.mlp.betas.1 = 1.0", "less than 1"]),
        ("families.mlp.replicas", True, ["families.mlp.replicas = True", "integer"]),
        ("seed", True, ["seed = True", "integer"]),
        ("evaluation.dims", "few", ["evaluation.dims = 'few'", "'auto' or 'all'"]),
        ("data.watch", "~/images", ["data", "'~'"]),
        ("fusion.strategies", ["bset"], ["unknown strategy 'bset'", "best"]),
        ("fusion.strategies", ["best", "best"], ["named twice"]),
        ("fusion.select", {"rule": "nearest"}, ["fusion.select.rule = 'nearest'", "'threshold'"]),
        ("fusion.select", {"factor": 3.0}, ["fusion.select", "'factor' is of rule 'threshold'", "is 'all'"]),
        ("fusion.select", {"rule": "threshold", "factor": 0.5}, ["fusion.select.factor = 0.5", "or equal to 1"]),
        ("fusion.select", {"rule": "top", "k": 3}, ["fusion.select.k", "unknown key", "rule, factor, count, noise"]),
        ("fusion.greedy_steps", 0, ["fusion.greedy_steps = 0", "or equal to 1"]),
        ("compute.device", "gpu", ["compute.device = 'gpu'", "'cuda'"]),
        ("judge.sample", 3, ["judge.sample", "unknown key", "samples"]),
        ("register.model", "A b", ["register.model = 'A b'"]),
        ("seed", "x", ["seed = 'x'", "integer"]),
        ("sed", 1, ["sed", "unknown key", "seed"]),
        ("families.mlp.lr", float("nan"), ["families.mlp.lr"]),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(path, value, parts):
    with pytest.raises(ChorusError) as caught:
        parse_params(changed(path, value))
    for part in parts:
        assert part in str(caught.value)
    assert "\nTraceback" not in str(caught.value)


def test_two_families_of_one_name_are_refused():
    text = TEXT.replace("  vae:\n", "  mlp:\n", 1)
    with pytest.raises(ChorusError, match=r"the key 'mlp' stands twice \(line \d+\)"):
        parse_params(text)


def test_broken_yaml_and_a_missing_file_are_said(tmp_path):
    with pytest.raises(ChorusError, match="not YAML"):
        parse_params("a: [1")
    with pytest.raises(ChorusError, match="missing"):
        read_params(tmp_path / "params.yaml")
    with pytest.raises(ChorusError, match="cannot be read"):
        read_params(tmp_path)
    (tmp_path / "params.yaml").write_bytes("seed: 0  # später".encode("latin-1"))
    with pytest.raises(ChorusError, match="cannot be read: 'utf-8' codec"):
        read_params(tmp_path / "params.yaml")
    for text in ("seed: 2026-13-01", "[" * 3000):
        with pytest.raises(ChorusError, match="not YAML"):
            parse_params(text)
    for text in ("seed: {{ seed }}", "? [a, b]\n: 1"):
        with pytest.raises(ChorusError, match=r"stands where a key is wanted \(line 1\)"):
            parse_params(text)
    for text in ("", "- a", "3"):
        with pytest.raises(ChorusError, match=r"params\.yaml holds no keys"):
            parse_params(text)


def test_a_named_judge_may_not_be_the_default_that_decides():
    # With classes the classifier decides by default, without classes it could judge: which one is known later.
    mixed = parse_params(changed("reference.judges", ["classifier"])).reference
    assert conflict(mixed.deciding(True), mixed.judging(True))
    assert not conflict(mixed.deciding(False), mixed.judging(False))


def test_the_roster_of_members_follows_from_the_recipe_alone():
    families = parse_params(TEXT).families
    assert families["mlp"].members == ("r0", "r1")
    assert parse_params(changed("families.mlp.scheme", "cascade")).families["mlp"].members == ("r0", "r1")
    assert parse_params(changed("families.mlp.scheme", "boosting")).families["mlp"].members == ("boosted",)


def test_defaults_are_frozen_and_every_architecture_is_listed():
    params = parse_params(TEXT)
    with pytest.raises(Exception, match="frozen"):
        params.seed = 3
    assert {"mlp", "dcgan", "vae"} <= set(registered(pipeline.models))


def test_judges_take_no_part_in_selection():
    params = parse_params(TEXT)
    for labelled in (True, False):
        assert params.reference.deciding(labelled)
        assert len(params.reference.judging(labelled)) == 2
        assert not set(params.reference.deciding(labelled)) & set(params.reference.judging(labelled))
    own = parse_params(changed("reference.selection", ["selfsup"]))
    assert "selfsup" not in own.reference.judging(True)


def test_the_command_prints_one_message_and_exits_with_2(tmp_path):
    (tmp_path / "params.yaml").write_text(changed("families.mlp.lr", -1))
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "train", "mlp"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "chorus: params.yaml: families.mlp.lr = -1: Input should be greater than 0\n"
    assert list(tmp_path.iterdir()) == [tmp_path / "params.yaml"]


def test_an_unknown_family_is_refused(tmp_path):
    (tmp_path / "params.yaml").write_text(TEXT)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "train", "nix"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no family 'nix'; it has: mlp" in done.stderr


def test_parameters_need_no_torch():
    code = "import sys, pipeline.params, pipeline.project; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_section_of_the_file_is_known_to_dvc():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    named = {param.split(".")[0] for stage in stages.values() for param in stage.get("do", stage).get("params", [])}
    assert named <= set(yaml.safe_load(TEXT))
    every = {field.alias or name for name, field in Params.model_fields.items()}
    assert every - {"flow"} == set(yaml.safe_load(TEXT)) - {"flow"}  # no stage reads it


def test_r3gan_refuses_spectral_normalisation() -> None:
    with pytest.raises(ValueError, match="nothing to divide by in r3gan"):
        Family(architecture="r3gan", kimg=1, spectral_norm=True)


def test_a_section_that_dvc_would_miss_is_named(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(TEXT)
    assert missing_sections(path) == []
    content = yaml.safe_load(TEXT)
    del content["students"], content["racing"]["rungs"]
    path.write_text(yaml.safe_dump(content))
    assert missing_sections(path) == ["students", "racing.rungs"]


def test_written_out_they_are_read_again_as_the_same():
    params = parse_params(TEXT)
    assert parse_params(yaml.safe_dump(params.model_dump(mode="json", by_alias=True))) == params
