"""Networks on disk: `config.json` beside safetensors, nothing pickled."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.errors import ChorusError
from pipeline.files import copy_snapshot, read_json, replacing, write_json
from pipeline.layers.combiner import Combiner
from pipeline.layers.rater import Rater
from pipeline.models._base import ModelConfig, build_discriminator, build_generator

SCHEMA = 1
# Networks that strategies make, by the kind in their `config.json`, whose other keys they are built from.
COMPANIONS = {"combiner": Combiner, "rater": Rater}
PROFILES = "profiles.safetensors"  # of a snapshot, where training keeps power-function averages


def save_state(path: Path, module: nn.Module) -> None:
    """Write a module's parameters and buffers as safetensors (contiguous, on the CPU), whole or not at all."""
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    with replacing(path) as temporary:
        save_file(state, temporary)


def load_state(path: Path, module: nn.Module) -> nn.Module:
    """Load safetensors into `module` and return it; raises `ChorusError` when they do not fit or are damaged."""
    try:
        module.load_state_dict(load_file(path))
    except FileNotFoundError:
        raise ChorusError(f"{path} is missing; run `dvc repro` or `dvc pull`") from None
    except Exception as error:  # safetensors and torch raise several kinds for damaged or foreign files
        raise ChorusError(f"{path} does not hold weights of this network: {error}") from None
    return module


def save_snapshot(folder: Path, config: ModelConfig, networks: dict[str, nn.Module], **facts: Any) -> None:
    """Write `NAME.safetensors` for each network, and `config.json` with the configuration and `facts`."""
    for name, network in networks.items():
        save_state(folder / f"{name}.safetensors", network)
    write_json(folder / "config.json", {"schema": SCHEMA, "model": config.to_json(), **facts})


def save_profiles(folder: Path, averages: Mapping[float, nn.Module]) -> None:
    """Write power-function averages of a snapshot's generator, by their relative width: their parameters alone.

    Buffers belong to the weights that were trained, and are measured anew for whatever is made of these.
    """
    tensors = {
        f"{width:g}/{name}": value.detach().cpu().contiguous()
        for width, average in averages.items()
        for name, value in average.named_parameters()
    }
    with replacing(folder / PROFILES) as temporary:
        save_file(tensors, temporary)


def load_profiles(folder: Path) -> dict[float, dict[str, Tensor]]:
    """Return what `save_profiles` wrote, by relative width and name of the parameter; nothing where it wrote nothing.

    Raises `ChorusError` for a damaged file.
    """
    if not (folder / PROFILES).exists():
        return {}
    found: dict[float, dict[str, Tensor]] = {}
    try:
        for key, value in load_file(folder / PROFILES).items():
            width, _, name = key.partition("/")
            found.setdefault(float(width), {})[name] = value
    except Exception as error:  # as above
        raise ChorusError(f"{folder / PROFILES} holds no averages of weights: {error}") from None
    return found


def save_half(folder: Path, config: ModelConfig, generator: nn.Module) -> None:
    """Write a snapshot of a generator in half precision; it loads as any, and computes in the precision it is put to.

    Raises `ChorusError` where a weight is too large for it.
    """
    halved = {
        name: value.detach().cpu().to(torch.float16 if value.is_floating_point() else value.dtype).contiguous()
        for name, value in generator.state_dict().items()
    }
    if large := [name for name, value in halved.items() if not torch.isfinite(value).all()]:
        raise ChorusError(f"half precision cannot hold the weights {', '.join(large)}: export it as onnx")
    with replacing(folder / "generator.safetensors") as temporary:
        save_file(halved, temporary)
    write_json(folder / "config.json", {"schema": SCHEMA, "model": config.to_json(), "precision": "fp16"})


def copy_variant(source: Path, target: Path, generator: nn.Module) -> None:
    """Copy a snapshot with another generator of the same architecture; its discriminator goes along, if it has one."""
    partners = ["discriminator"] if (source / "discriminator.safetensors").exists() else []
    copy_snapshot(source, target, partners)
    save_state(target / "generator.safetensors", generator)


def read_content(folder: Path) -> dict[str, Any]:
    """Read a network's `config.json`; raises `ChorusError` for a schema newer than this code."""
    content: dict[str, Any] = read_json(folder / "config.json")
    if content.get("schema") != SCHEMA:
        raise ChorusError(f"{folder}/config.json has schema {content.get('schema')}, this code reads {SCHEMA}: update")
    return content


def read_config(folder: Path) -> ModelConfig:
    """Read a snapshot's configuration; raises `ChorusError` for a schema newer than this code."""
    return ModelConfig.from_json(read_content(folder)["model"])


def load_generator(folder: Path, device: torch.device | str = "cpu") -> tuple[nn.Module, ModelConfig]:
    """Load a snapshot's generator in evaluation mode."""
    config = read_config(folder)
    network = load_state(folder / "generator.safetensors", build_generator(config))
    return network.to(device).eval().requires_grad_(False), config


def load_discriminator(folder: Path, device: torch.device | str = "cpu") -> nn.Module:
    """Load a snapshot's discriminator in evaluation mode; raises `ChorusError` where its architecture has none."""
    config = read_config(folder)
    discriminator = build_discriminator(config)
    if discriminator is None:
        raise ChorusError(f"{folder}: a '{config.architecture}' has no discriminator")
    network = load_state(folder / "discriminator.safetensors", discriminator)
    return network.to(device).eval().requires_grad_(False)


def save_companion(folder: Path, config: dict[str, Any], network: nn.Module) -> None:
    """Write a network that a strategy made: `model.safetensors`, and `config.json` with its kind and what it has."""
    save_state(folder / "model.safetensors", network)
    write_json(folder / "config.json", {"schema": SCHEMA, "network": config})


def load_companion(folder: Path, device: torch.device | str = "cpu") -> nn.Module:
    """Load such a network in evaluation mode; raises `ChorusError` for a schema newer than this code."""
    config = dict(read_content(folder)["network"])
    network = load_state(folder / "model.safetensors", COMPANIONS[config.pop("kind")](**config))
    return network.to(device).eval().requires_grad_(False)
