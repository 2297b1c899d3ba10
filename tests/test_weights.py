import json

import pytest
import torch

from pipeline.errors import ChorusError
from pipeline.fusion.samplers import draw
from pipeline.models._base import ModelConfig, architecture
from pipeline.recipes import load_sampler
from pipeline.weights import (
    PROFILES,
    load_discriminator,
    load_generator,
    load_profiles,
    read_config,
    save_profiles,
    save_snapshot,
)

CONFIG = ModelConfig("mlp", channels=1, size=8, latent=5, width=4)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    mlp = architecture("mlp")
    networks = {"generator": mlp.generator(CONFIG), "discriminator": mlp.discriminator(CONFIG)}
    save_snapshot(tmp_path / "mlp/r0/000000001", CONFIG, networks, family="mlp")
    return tmp_path / "mlp/r0/000000001"


def test_a_snapshot_round_trips(folder):
    generator, config = load_generator(folder)
    assert config == CONFIG
    assert not generator.training
    assert generator(torch.zeros(2, 5)).shape == (2, 1, 8, 8)
    assert load_discriminator(folder)(torch.zeros(2, 1, 8, 8)).shape == (2,)
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json",
        "discriminator.safetensors",
        "generator.safetensors",
    ]


def test_averages_round_trip_without_buffers(folder):
    network, _ = load_generator(folder)
    save_profiles(folder, {0.05: load_generator(folder)[0], 0.1: network})
    found = load_profiles(folder)
    assert list(found) == [0.05, 0.1]
    assert found[0.1].keys() == dict(network.named_parameters()).keys()
    for name, value in network.named_parameters():
        torch.testing.assert_close(found[0.1][name], value, rtol=0, atol=0)


def test_averages_that_are_missing_or_damaged(folder):
    assert load_profiles(folder) == {}
    (folder / PROFILES).write_bytes(b"no weights")
    with pytest.raises(ChorusError, match="holds no averages of weights"):
        load_profiles(folder)


def test_a_recipe_is_loaded_from_its_root(folder):
    root = folder.parents[2]
    recipe = {"kind": "candidate", "id": "mlp/r0/000000001"}
    assert draw(load_sampler(recipe, root.joinpath), 3, seed=0).shape == (3, 1, 8, 8)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/x/y", "a/b", "a/b/c/d", "a/../c", "A/b/c", ""])
def test_an_id_cannot_leave_the_root(folder, name):
    with pytest.raises(ChorusError, match="not the id of a candidate"):
        load_sampler({"kind": "candidate", "id": name}, folder.parents[2].joinpath)


def test_damaged_missing_and_foreign_weights_are_named(folder):
    path = folder / "generator.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ChorusError, match=r"generator\.safetensors does not hold weights"):
        load_generator(folder)
    path.write_bytes(b"\x80\x04K\x01.")  # a pickle
    with pytest.raises(ChorusError, match="does not hold weights"):
        load_generator(folder)
    path.unlink()
    with pytest.raises(ChorusError, match="is missing"):
        load_generator(folder)


def test_a_newer_schema_is_refused(folder):
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "schema": 99}))
    with pytest.raises(ChorusError, match="schema 99"):
        read_config(folder)
