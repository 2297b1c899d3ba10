"""Every registered architecture keeps the contract of its networks; registering one is all it takes to be tested."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d

import pipeline.models
from pipeline.compute import Runtime
from pipeline.layers.convolutional import Down, Overlap, Up, Windows
from pipeline.models._base import ModelConfig, architecture, build_discriminator, build_generator
from pipeline.params import Family, registered
from pipeline.training import loop
from pipeline.training.loop import Data
from pipeline.training.streams import Streams
from pipeline.weights import load_discriminator, load_generator, save_snapshot
from tests.factories import structured_images

NAMES = registered(pipeline.models)
SIZES = (8, 16, 28, 32, 64, 128)
SHARES = (0.5, 0.25, 0.25)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_registers_the_architecture_of_its_name(name: str) -> None:
    assert architecture(name).name == name
    assert architecture(name).objective == Family(architecture=name, kimg=1).objective


def shaped(name: str, size: int = 8, channels: int = 1, classes: int = 0) -> ModelConfig:
    """Return the configuration of small networks."""
    return ModelConfig(name, channels, size, 6, 4, class_shares=SHARES if classes else (), sampling_steps=2)


def networks_of(config: ModelConfig) -> dict[str, nn.Module]:
    """Return all networks of an architecture, drawn with one seed, without layers that are still zero."""
    torch.manual_seed(0)
    encoder = architecture(config.architecture).encoder
    built = {"generator": build_generator(config), "discriminator": build_discriminator(config)}
    built["encoder"] = None if encoder is None else encoder(config)
    found = {role: network for role, network in built.items() if network is not None}
    with torch.no_grad():
        for network in found.values():
            for parameter in network.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
    return found


def inputs_of(role: str, network: nn.Module, config: ModelConfig, n: int = 6) -> tuple[Tensor, Tensor | None]:
    """Return what a network of this role maps: latents or images, and labels where it knows classes."""
    shape = (network.latent,) if role == "generator" else (config.channels, config.size, config.size)
    return torch.randn(n, *shape), torch.arange(n) % config.classes if config.classes else None


@pytest.mark.parametrize("classes", [0, 3], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_trains_and_samples_the_same_after_loading(
    name: str, size: int, channels: int, classes: int, tmp_path: Path
) -> None:
    family = Family(architecture=name, kimg=0.004, batch=4, latent=6, width=4, conditional=classes > 0)
    config = shaped(name, size, channels, classes)
    runtime, streams = Runtime(torch.device("cpu"), None), Streams(0, name, 0)
    images = torch.randint(256, (9, channels, size, size), dtype=torch.uint8)
    state = loop.build(family, config, runtime, streams)
    start = [parameter.clone() for parameter in state.average.parameters()]
    labels = torch.arange(9) % classes if classes else None
    for _ in loop.train(Data(images, labels), family, config, runtime, streams, state):
        pass
    assert any(not torch.equal(a, b) for a, b in zip(start, state.average.parameters(), strict=True))

    networks = {"generator": state.average}
    if "discriminator" in state.networks:
        networks["discriminator"] = state.networks["discriminator"]
    save_snapshot(tmp_path, config, networks)
    generator, read = load_generator(tmp_path)
    assert read == config
    z, y = inputs_of("generator", generator, config)
    drawn = generator(z, y)
    assert drawn.shape == (6, channels, size, size)
    assert drawn.dtype == torch.float32
    assert drawn.abs().max() <= 1
    assert drawn.std() > 0
    # The average trained in channels_last; the loaded one is laid out plainly and may round otherwise.
    torch.testing.assert_close(drawn, state.average(z, y), atol=1e-5, rtol=1e-4)
    if "discriminator" in networks:
        discriminator = load_discriminator(tmp_path)
        assert discriminator(drawn, y).shape == (6,)
        assert discriminator(drawn).shape == (6,)  # a critic that is told no class judges whatever the class


@pytest.mark.parametrize("classes", [0, 3], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name: str, classes: int) -> None:
    config = shaped(name, 16, classes=classes)
    for role, network in networks_of(config).items():
        outputs = network.eval()(*inputs_of(role, network, config))
        parts = outputs if isinstance(outputs, tuple) else (outputs,)
        sum((part * torch.randn_like(part)).sum() for part in parts).backward()
        still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        assert not still, f"{role}: no gradient in {still}"


@pytest.mark.parametrize("classes", [0, 3], ids=["unconditional", "conditional"])
@pytest.mark.parametrize("name", NAMES)
def test_each_row_stands_alone_in_evaluation(name: str, classes: int) -> None:
    config = shaped(name, 16, classes=classes)
    for role, network in networks_of(config).items():
        rows, y = inputs_of(role, network.eval(), config)
        with torch.no_grad():
            together, alone = network(rows, y), network(rows[2:4], None if y is None else y[2:4])
        for whole, part in zip(*(o if isinstance(o, tuple) else (o,) for o in (together, alone)), strict=True):
            torch.testing.assert_close(whole[2:4], part, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_conditional_network_tells_classes_apart(name: str) -> None:
    config = shaped(name, classes=3)
    for role, network in networks_of(config).items():
        if (name, role) == ("vaegan", "encoder"):
            continue  # an image says its class
        rows, _ = inputs_of(role, network.eval(), config)
        with torch.no_grad():
            one, other = (network(rows, torch.full((6,), label)) for label in (0, 2))
        first, second = (o[0] if isinstance(o, tuple) else o for o in (one, other))
        assert not torch.allclose(first, second, atol=1e-4), role


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_says_every_weight(name: str) -> None:
    config = shaped(name, classes=3)
    for one, other in zip(networks_of(config).values(), networks_of(config).values(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_comes_back_from_json(name: str, classes: int) -> None:
    config = shaped(name, 28, 3, classes)
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_dcgan_trains_on_64x64_colour_images() -> None:
    family = Family(architecture="dcgan", kimg=0.192, batch=16, latent=32, width=16)
    config = ModelConfig("dcgan", 3, 64, family.latent, family.width)
    runtime, streams = Runtime(torch.device("cpu"), None), Streams(0, "colour", 0)
    images = torch.from_numpy(structured_images(64, 64, 3, np.arange(64) % 3))
    state = loop.build(family, config, runtime, streams)
    for _ in loop.train(Data(images), family, config, runtime, streams, state):
        pass
    assert state.nimg == 192
    assert all(math.isfinite(value) for row in state.history for value in row.values())
    assert state.history[-1]["logit_real"] > state.history[-1]["logit_fake"]
    drawn = state.average(torch.randn(8, 32))
    assert drawn.shape == (8, 3, 64, 64)
    assert drawn.isfinite().all()
    assert drawn.flatten(1).std(0).mean() > 0.01  # not one image for all latents


@pytest.mark.parametrize("name", NAMES)
def test_width_scales_the_networks(name: str) -> None:
    narrow, wide = (architecture(name).generator(ModelConfig(name, 1, 32, 10, width)) for width in (16, 32))
    assert sum(p.numel() for p in wide.parameters()) > 2 * sum(p.numel() for p in narrow.parameters())


def test_mlp_has_the_named_sizes_at_width_64() -> None:
    config = ModelConfig("mlp", 1, 28, 100, 64)
    generator, discriminator = architecture("mlp").generator(config), architecture("mlp").discriminator(config)
    assert [m.out_features for m in generator.modules() if hasattr(m, "out_features")] == [256, 512, 1024, 784]
    assert [m.out_features for m in discriminator.modules() if hasattr(m, "out_features")] == [1024, 512, 256, 1]


def test_vae_noise_is_the_tail_of_the_latent() -> None:
    config = ModelConfig("vae", 1, 8, 5, 4, sample_noise=True)
    generator = architecture("vae").generator(config).eval()
    assert generator.latent == 5 + 64
    generator.sigma.fill_(0.01)
    z = torch.randn(3, generator.latent)
    noise = z[:, 5:].reshape(3, 1, 8, 8)
    torch.testing.assert_close(generator(z), generator.mean(z[:, :5]) + 0.01 * noise)


def test_products_equal_convolutions() -> None:
    """Both directions and all gradients, second ones included, in float64."""
    small, large = torch.randn(2, 3, 4, 4, dtype=torch.double), torch.randn(2, 5, 8, 8, dtype=torch.double)
    weight = torch.randn(3, 5, 4, 4, dtype=torch.double)
    matrix = weight.permute(0, 2, 3, 1).flatten(1)
    down = (Windows.apply(large.permute(0, 2, 3, 1)) @ matrix.T).permute(0, 3, 1, 2)
    up = Overlap.apply(small.permute(0, 2, 3, 1) @ matrix).permute(0, 3, 1, 2)
    torch.testing.assert_close(down, conv2d(large, weight, stride=2, padding=1))
    torch.testing.assert_close(up, conv_transpose2d(small, weight, stride=2, padding=1))
    leaf = torch.randn(1, 4, 4, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: Windows.apply(x).square(), leaf)
    assert torch.autograd.gradgradcheck(lambda x: Overlap.apply(Windows.apply(x)).square(), leaf)


@pytest.mark.parametrize("layer", [Down(6, 5, bias=True), Up(6, 5, bias=True)])
def test_products_replace_convolutions_only_in_bfloat16(layer: torch.nn.Module) -> None:
    maps = torch.randn(2, 6, 4, 4)
    plain = layer(maps)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        product = layer(maps)
    assert product.dtype == torch.bfloat16
    torch.testing.assert_close(product.float(), plain, atol=0.05, rtol=0.05)
