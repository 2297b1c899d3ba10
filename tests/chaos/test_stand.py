"""The trials' own tools: undone stages have truly to run again, and differences of results are noticed."""

from pathlib import Path

from flows.planning.graph import read_graph
from tests.chaos.evidence import differences, half_written
from tests.chaos.undoing import undo


def test_an_undone_stage_is_not_restored_and_the_others_are_left_alone(done: Path) -> None:
    undo(done, ["train@x"])
    stages = read_graph(done).stages
    assert not (done / "model-x.txt").exists()
    assert stages["train@x"].reasons == ("never run",)
    assert not stages["train@x"].cached
    assert stages["train@y"].reasons == stages["ingest"].reasons == ()


def test_what_differs_is_named() -> None:
    expected = {"models/a": "1", "models/b": "2", "models/c": "3"}
    found = {"models/a": "1", "models/b": "other", "models/d": "4"}
    assert differences(found, expected) == ["models/b differs", "models/c is lost", "models/d is new"]


def test_temporary_files_and_checkpoints_are_left_over_and_weights_are_not(tmp_path: Path) -> None:
    for name in ("models/x/.recipe.json.1.tmp", "models/x/generator.safetensors", ".checkpoints/x/r0/c.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    left = ["models/x/.recipe.json.1.tmp is left over", ".checkpoints/x/r0/c.safetensors is left over"]
    assert half_written(tmp_path) == left
