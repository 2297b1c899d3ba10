"""Every registered architecture keeps the contract of its networks; registering one is all it takes to be tested."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import conv2d, conv_transpose2d

import pipeline.models
from pipeline.compute import Runtime
from pipeline.layers.convolutional import Down, Overlap, Up, Windows
from pipeline.models._base import ModelConfig, architecture
from pipeline.params import Family, registered
from pipeline.training import loop
from pipeline.training.loop import Data
from pipeline.training.streams import Streams
from pipeline.weights import load_discriminator, load_generator, save_snapshot

NAMES = registered(pipeline.models)
SIZES = (8, 16, 28, 32, 64, 128)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_registers_the_architecture_of_its_name(name: str) -> None:
    assert architecture(name).name == name
    assert architecture(name).objective == Family(architecture=name, kimg=1).objective


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_trains_and_samples_the_same_after_loading(name: str, size: int, channels: int, tmp_path: Path) -> None:
    family = Family(architecture=name, kimg=0.008, batch=4, latent=6, width=4)
    config = ModelConfig(name, channels, size, family.latent, family.width)
    runtime, streams = Runtime(torch.device("cpu"), None), Streams(0, name, 0)
    images = torch.randint(256, (9, channels, size, size), dtype=torch.uint8)
    state = loop.build(family, config, runtime, streams)
    start = [parameter.clone() for parameter in state.average.parameters()]
    for _ in loop.train(Data(images), family, config, runtime, streams, state):
        pass
    assert any(not torch.equal(a, b) for a, b in zip(start, state.average.parameters(), strict=True))

    networks = {"generator": state.average}
    if "discriminator" in state.networks:
        networks["discriminator"] = state.networks["discriminator"]
    save_snapshot(tmp_path, config, networks)
    generator, _ = load_generator(tmp_path)
    z = torch.randn(5, generator.latent)
    drawn = generator(z)
    assert drawn.shape == (5, channels, size, size)
    assert drawn.dtype == torch.float32
    assert drawn.abs().max() <= 1
    assert drawn.std() > 0
    # The average trained in channels_last; the loaded one is laid out plainly and may round otherwise.
    torch.testing.assert_close(drawn, state.average(z), atol=1e-5, rtol=1e-4)
    if "discriminator" in networks:
        assert load_discriminator(tmp_path)(drawn).shape == (5,)


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
