"""The state that a rung leaves: the same bytes for the same state, and a training that goes on as if unbroken."""

from pathlib import Path

import pytest
import torch

from pipeline.compute import Runtime
from pipeline.errors import ChorusError
from pipeline.models._base import ModelConfig
from pipeline.params import Family
from pipeline.training import loop
from pipeline.training.handover import continue_from, images_seen, save_handover
from pipeline.training.loop import Data
from pipeline.training.state import State
from pipeline.training.streams import Streams

RUNTIME = Runtime(torch.device("cpu"), None)
CONFIG = ModelConfig("mlp", 1, 8, 4, 4)
IMAGES = Data(torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))


def family(kimg: float, **changes: object) -> Family:
    return Family.model_validate(
        {"architecture": "mlp", "kimg": kimg, "batch": 8, "latent": 4, "width": 4, "ema_profiles": True, **changes}
    )


def trained(recipe: Family, start: int = 0, state: State | None = None) -> State:
    streams = Streams(1, "f", 0)
    state = state or loop.build(recipe, CONFIG, RUNTIME, streams)
    for _ in loop.train(IMAGES, recipe, CONFIG, RUNTIME, streams, state, start):
        pass
    return state


def test_two_rungs_are_one_training(tmp_path: Path) -> None:
    """Five steps and then seven leave the tensors that twelve leave."""
    save_handover(tmp_path / "state", trained(family(0.04)))
    assert images_seen(tmp_path / "state") == 40
    state = loop.build(family(0.056), CONFIG, RUNTIME, Streams(1, "f", 0))
    continue_from(tmp_path / "state", state)
    later, whole = trained(family(0.056), 40, state), trained(family(0.096))
    assert later.nimg == whole.nimg == 96
    left, right = later.tensors(), whole.tensors()
    assert left.keys() == right.keys()
    assert any(name.startswith("profile0.05/") for name in left)
    assert all(torch.equal(left[name], right[name]) for name in left if name != "sums")


def test_the_file_is_the_same_for_the_same_state(tmp_path: Path) -> None:
    state = trained(family(0.016))
    for name in "ab":
        save_handover(tmp_path / name, state)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_snapshots_of_a_later_rung_are_spread_over_its_own_budget() -> None:
    assert loop.schedule(family(0.8, snapshots=2), start=80) == (110, {60, 110})
    assert loop.schedule(family(0.8, snapshots=2)) == (100, {50, 100})


@pytest.mark.parametrize("content", [b"", b"no state at all"])
def test_a_file_that_is_no_state_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state"
    path.write_bytes(content)
    with pytest.raises(ChorusError, match="is damaged"):
        images_seen(path)
    with pytest.raises(ChorusError, match="no state of these networks"):
        continue_from(path, loop.build(family(1), CONFIG, RUNTIME, Streams(1, "f", 0)))
