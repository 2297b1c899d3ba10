"""Small outputs of the stages before `register`, made with real networks."""

from pathlib import Path

import torch

from pipeline.files import write_json
from pipeline.models._base import ModelConfig, architecture
from pipeline.weights import save_snapshot

CONFIG = ModelConfig(architecture="mlp", channels=1, size=8, latent=4, width=8)


def write_snapshot(folder: Path, seed: int, config: ModelConfig = CONFIG) -> None:
    """Write one snapshot of an untrained member."""
    torch.manual_seed(seed)
    made = architecture(config.architecture)
    networks = {"generator": made.generator(config)}
    if made.discriminator is not None:
        networks["discriminator"] = made.discriminator(config)
    save_snapshot(folder, config, networks, nimg=1000)


def write_fused(folder: Path, weights: tuple[float, ...] = (0.75, 0.25), seed: int = 0) -> None:
    """Write `models/fused` with a mixture of untrained members."""
    ids = [f"mlp/r{i}/000001000" for i in range(len(weights))]
    for i, name in enumerate(ids):
        write_snapshot(folder / "members" / name, seed + i)
    parts = [{"kind": "candidate", "id": name} for name in ids]
    recipe = {"kind": "mixture", "weights": list(weights), "parts": parts}
    write_json(folder / "recipe.json", {"schema": 1, "strategy": "weighted", "recipe": recipe})
