"""The export command: what it writes and measures, and what it refuses with exit status 2."""

from pathlib import Path

import pytest
import torch

from pipeline.__main__ import main
from pipeline.errors import ChorusError
from pipeline.export.onnx import OnnxGenerator
from pipeline.files import write_json
from pipeline.models._base import ModelConfig, build_generator
from pipeline.project import Project
from pipeline.stages import reference
from pipeline.weights import load_generator, save_half, save_snapshot
from tests.factories import write_prepared

PARAMS = """
data: {source: digits, watch: unused, size: 8}
compute: {device: cpu, precision: fp32}
reference: {kimg: 1}
evaluation: {samples: 100}
families: {gan: {architecture: mlp, kimg: 1, latent: 8, width: 8}}
"""
ONE = "gan/r0/000001000"
MIXED = "gan/mixture/000001000"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    part = ModelConfig("mlp", 1, 8, 8, 8)
    mixture = ModelConfig("mixture", 1, 8, 9, 8, parts=(part, part), weights=(0.5, 0.5))
    folder = Project.load(tmp_path).family_folder("gan").parent
    for name, config in ((ONE, part), (MIXED, mixture)):
        save_snapshot(folder / name, config, {"generator": build_generator(config).eval()})
    save_snapshot(tmp_path / "models" / "chosen" / "members" / ONE, part, {"generator": build_generator(part).eval()})
    choose(tmp_path, {"kind": "candidate", "id": ONE})
    return tmp_path


def choose(root: Path, recipe: dict) -> None:
    write_json(root / "models" / "chosen" / "recipe.json", {"schema": 1, "recipe": recipe})


def test_half_precision_loads_as_any_snapshot(root: Path) -> None:
    assert main(["export", "--what", ONE, "--format", "fp16", "--out", "half"]) == 0
    original = Project.load(root).snapshot(ONE)
    network, config = load_generator(root / "half")
    before, before_config = load_generator(original)
    assert config == before_config
    z = torch.randn(5, 8)
    torch.testing.assert_close(network(z), before(z), rtol=0, atol=5e-3)
    file = Path("generator.safetensors")
    assert (root / "half" / file).stat().st_size < 0.75 * (original / file).stat().st_size
    assert not list(root.glob(".half*"))


def test_weights_beyond_half_precision_are_refused(root: Path) -> None:
    network = build_generator(ModelConfig("mlp", 1, 8, 8, 8))
    next(network.parameters()).data.fill_(1e6)
    with pytest.raises(ChorusError, match="half precision cannot hold"):
        save_half(root / "half", ModelConfig("mlp", 1, 8, 8, 8), network)
    assert not (root / "half").exists()


def test_the_chosen_generator_becomes_a_file_and_is_measured(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = Project.load(root)
    write_prepared(target.prepared)
    reference.run(target)
    assert main(["export", "--format", "int8", "--out", "small.onnx"]) == 0
    said = capsys.readouterr().out
    assert "before the export" in said
    assert "rfd_selection" in said
    network, _ = load_generator(target.chosen / "members" / ONE)
    images = OnnxGenerator((root / "small.onnx").read_bytes(), network)(torch.randn(3, 8))
    assert images.shape == (3, 1, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--what", MIXED, "--format", "onnx"], "distil a student"),
        (["--what", MIXED, "--format", "int8"], "distil a student"),
        (["--what", "../gan", "--format", "fp16"], "neither 'chosen' nor the id"),
        (["--what", "gan/r7/000001000", "--format", "fp16"], "lies in no rung"),
        (["--what", ONE, "--format", "onnx", "--out", "params.yaml"], "is there already"),
        (["--what", ONE, "--format", "onnx", "--out", "params.yaml/out"], "cannot be written"),
        (["--what", ONE, "--format", "fp16", "--out", "params.yaml/out"], "cannot be written"),
    ],
)
def test_bad_input_ends_with_status_2_and_no_file(
    root: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(root.iterdir())
    given = arguments if "--out" in arguments else [*arguments, "--out", "out"]
    assert main(["export", *given]) == 2
    assert words in capsys.readouterr().err
    assert sorted(root.iterdir()) == before


def test_a_chosen_mixture_of_generators_is_refused_with_the_remedy(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    choose(root, {"kind": "mixture", "weights": [1.0], "parts": [{"kind": "candidate", "id": ONE}]})
    assert main(["export", "--format", "fp16", "--out", "half"]) == 2
    assert "distil a student" in capsys.readouterr().err
