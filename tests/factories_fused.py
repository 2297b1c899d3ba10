"""Small outputs of the stages before `register`, made with real networks."""

from pathlib import Path

import numpy as np
import torch

from pipeline import registry
from pipeline.evaluation.networks import NetworkConfig, build, to_float
from pipeline.evaluation.pictures import write_png
from pipeline.evaluation.ruler import DECIDES
from pipeline.files import read_json, write_json
from pipeline.fusion.ratio import Ratio
from pipeline.fusion.samplers import draw
from pipeline.layers.rater import Rater
from pipeline.models._base import ModelConfig, architecture
from pipeline.recipes import load_sampler
from pipeline.weights import save_companion, save_snapshot
from tests.factories import write_prepared

MEMBERS = ["r0", "r1"]
PARAMS = """
data: {source: folder, root: images, watch: images, size: 8}
families: {mlp: {architecture: mlp, kimg: 1, replicas: 2, width: 8, latent: 4}}
"""
CONFIG = ModelConfig(architecture="mlp", channels=1, size=8, latent=4, width=8)


def write_snapshot(folder: Path, seed: int, config: ModelConfig = CONFIG) -> None:
    """Write one snapshot of an untrained member."""
    torch.manual_seed(seed)
    made = architecture(config.architecture)
    networks = {"generator": made.generator(config)}
    if made.discriminator is not None:
        networks["discriminator"] = made.discriminator(config)
    save_snapshot(folder, config, networks, nimg=1000)


def write_fused(
    folder: Path, weights: tuple[float, ...] = (0.75, 0.25), seed: int = 0, config: ModelConfig = CONFIG
) -> None:
    """Write `models/fused` with a mixture of untrained members."""
    ids = [f"mlp/r{i}/000001000" for i in range(len(weights))]
    for i, name in enumerate(ids):
        write_snapshot(folder / "members" / name, seed + i, config)
    parts = [{"kind": "candidate", "id": name} for name in ids]
    recipe = {"kind": "mixture", "weights": list(weights), "parts": parts}
    write_json(folder / "recipe.json", {"schema": 1, "strategy": "weighted", "recipe": recipe})


def write_rejection(folder: Path) -> None:
    """Write `models/fused` with a rejection from that mixture, by a ratio of untrained extractors."""
    write_fused(folder)
    torch.manual_seed(9)
    names = ("classifier", "selfsup")
    for name in names:
        network = NetworkConfig("plain", CONFIG.channels, CONFIG.size, 6)
        save_companion(folder / "members" / "extractors" / name, network.to_json(), build(network))
    ratio = Ratio(names, features=12, components=4)
    ratio.linear.normal_()
    ratio.quadratic.fill_(-0.1)
    save_companion(folder / "members" / "ratios" / "ratio", ratio.config, ratio)
    content = read_json(folder / "recipe.json")
    companions = {"ratio": "ratios/ratio", **{name: f"extractors/{name}" for name in names}}
    numbers = {"tries": 6, "acceptance": 0.5}
    recipe = {"kind": "rejection", "source": content["recipe"], "companions": companions, **numbers}
    write_json(folder / "recipe.json", content | {"recipe": recipe})


def write_latents(folder: Path) -> None:
    """Write `models/fused` with one of these members, its latents rejected by an untrained rater."""
    write_fused(folder)
    torch.manual_seed(9)
    rater = Rater(CONFIG.latent, 8)
    with torch.no_grad():
        rater.head.weight.mul_(30)
    config = {"kind": "rater", "inputs": CONFIG.latent, "width": 8}
    save_companion(folder / "members" / "raters" / "latent_ratio", config, rater)
    content = read_json(folder / "recipe.json")
    source, companions = content["recipe"]["parts"][0], {"rater": "raters/latent_ratio"}
    recipe = {"kind": "latents", "source": source, "companions": companions, "tries": 6, "acceptance": 0.5}
    write_json(folder / "recipe.json", content | {"recipe": recipe})


def write_critic(folder: Path) -> None:
    """Write a fused critic of one discriminator that nobody trained."""
    name = "mlp/r0/000001000"
    write_snapshot(folder / "members" / name, seed=5)
    (folder / "members" / name / "generator.safetensors").unlink()
    reading = {"slope": 2.0, "intercept": 0.1, "quantiles": np.linspace(-1, 1, 128).tolist()}
    write_json(folder / "critic.json", {"schema": 1, "rule": "average", "critics": [{"id": name, **reading}]})


def write_moe(folder: Path) -> None:
    """Write `models/fused` with experts for two groups of images, which an untrained extractor tells apart."""
    write_fused(folder)
    torch.manual_seed(9)
    config = NetworkConfig("plain", CONFIG.channels, CONFIG.size, 6)
    network = build(config).eval()
    save_companion(folder / "members" / "extractors" / "selfsup", config.to_json(), network)
    content = read_json(folder / "recipe.json")
    drawn = [
        draw(load_sampler(part, (folder / "members").joinpath), 200, seed=1) for part in content["recipe"]["parts"]
    ]
    with torch.inference_mode():
        first = torch.stack([network(to_float(images))[0][:, 0] for images in drawn])
    middle = float(first.median())
    above = (first > middle).float().mean(1).tolist()
    recipe = {
        **content["recipe"],
        "kind": "moe",
        "by_class": False,
        "shares": [0.5, 0.5],
        "table": [[0.75, 0.25], [0.5, 0.5]],
        "companions": {"router": "extractors/selfsup"},
        "head": {"weights": [[1.0] + [0.0] * 5, [0.0] * 6], "biases": [-middle, 0.0]},
        "found": [above, [1 - share for share in above]],
    }
    write_json(folder / "recipe.json", content | {"recipe": recipe})


def write_project(root: Path) -> None:
    """Write a checkout's files as all stages before `register` leave them: one family `mlp` with two members."""
    root.joinpath("params.yaml").write_text(PARAMS)
    write_prepared(root / "data" / "prepared")
    (root / "data" / "prepared" / "quarantine.jsonl").write_text(
        '{"id": "a.png", "reason": "truncated"}\n{"id": "caf\\udce9.png", "reason": "empty"}\n'
    )
    candidates = []
    for i, member in enumerate(MEMBERS):
        folder = root / "models" / "members" / "rung1" / "mlp" / member
        write_snapshot(folder / "000001000", seed=i)
        write_json(folder / "history.json", [{"nimg": n, "loss_g": 1.0, "loss_d": 2.0} for n in (500, 1000)])
        name = f"mlp/{member}/000001000"
        write_png(root / "evaluation" / "rung1" / name / "grid.png", np.zeros((8, 8, 3), np.uint8))
        candidates.append({"id": name, "member": f"mlp/{member}", "nimg": 1000, "metrics": {DECIDES: 2.0 + i}})
    write_json(
        root / "models" / "members" / "rung1" / "mlp" / "family.json",
        {"schema": 1, "family": "mlp", "members": MEMBERS, "params": {"lr": 0.1}},
    )
    write_json(root / "evaluation" / "rung1" / "mlp" / "evaluation.json", {"schema": 1, "candidates": candidates})
    write_fused(root / "models" / "fused")
    write_fused(root / "models" / "chosen")
    write_judgement(root)
    write_verdict(root)


def write_verdict(root: Path, champion: str | None = None) -> None:
    """Write what the gate says of `models/chosen`; champion: the number of a version that could not be measured."""
    with registry.packed(root / "models" / "chosen") as (_, identity):
        pass
    candidate = {"content": identity, "kind": "strategy", "name": "weighted", "fault": None}
    measured = {"metrics": {}, "milliseconds": 0.25, "passes": 1.0, "megabytes": 0.3}
    rules = [
        {"name": "smoke", "verdict": "passed", "why": "loads", "value": None, "limit": None},
        {"name": "improvement", "verdict": "not applied", "why": "no champion", "value": None, "limit": None},
    ]
    verdict = {
        "schema": 1,
        "passed": True,
        "split": "gate",
        "images": 64,
        "samples": 64,
        "seed": 1,
        "confidence": 0.95,
        "judges": ["selfsup"],
        "candidate": candidate | measured,
        "champion": champion and {"version": champion, "content": "", "itself": False, "problem": "it is lost"},
        "real": {},
        "comparison": [],
        "rules": rules,
    }
    write_json(root / "report" / "gate.json", verdict)
    write_png(root / "report" / "gate" / "candidate.png", np.zeros((8, 8, 3), np.uint8))


def write_judgement(root: Path, winner: str = "weighted") -> None:
    """Write `strategies.json`, `report/metrics.json` and the figures."""
    recipe = read_json(root / "models" / "fused" / "recipe.json")["recipe"]
    rows = [
        {
            "name": winner,
            "recipe": recipe,
            "classes": 0,
            "why": "the winner",
            "evidence": {"fit": 1.0, "choose": 1.1, "cost": 1.0},
        }
    ]
    pool = {f"mlp/{member}/000001000": 2.0 for member in MEMBERS}
    strategies = {"schema": 1, "decided_by": DECIDES, "winner": winner, "pool": pool, "strategies": rows}
    write_json(root / "models" / "fused" / "strategies.json", strategies)
    shipped = {"kind": "strategy", "name": winner}
    table = {
        "schema": 1,
        "decided_by": DECIDES,
        "tolerance": None,
        "shipped": shipped,
        "rows": [shipped | {"shipped": True}],
    }
    write_json(root / "models" / "chosen" / "students.json", table)
    arms = [("mlp/r0", "member", 2.0), ("mlp/r1", "member", 3.0), (winner, "strategy", 1.5)]
    metrics = {
        "schema": 1,
        "split": "gate",
        "samples": 64,
        "decided_by": DECIDES,
        "judges": ["selfsup"],
        "headline": ["fd16_selfsup"],
        "winner": winner,
        "shipped": shipped,
        "best_member": "mlp/r0",
        "floor": {"fd16_selfsup": 0.2},
        "floor_images": [96, 64],
        "accuracy": {"selfsup": None},
        "warnings": [],
        "classes": None,
        "memorisation": [
            {
                "name": winner,
                "kind": "strategy",
                "authentic": 0.5,
                **{
                    name: {"value": 0.8, "by_chance": 0.8, "deviation": 0.01}
                    for name in ("in_train", "closest_in_train")
                },
                "distance_ratio": 1.0,
                "suspicious": False,
            }
        ],
        "arms": [
            {"name": name, "kind": kind, "cost": 1.0, "metrics": {DECIDES: d, "fd16_selfsup": d}}
            for name, kind, d in arms
        ],
        "intervals": {
            "confidence": 0.95,
            "images_a_dimension": 5,
            "arms": [{"name": name, "kind": kind, "distances": {}, "differences": {}} for name, kind, _ in arms],
        },
        "classifiers": {
            "kimg": 1.0,
            "two_sample": [
                {"name": winner, "kind": "strategy", "images": 9, "share": 1, "low": 0.7, "high": 1, "p_value": 0}
            ],
            "classification": {"rows": [{"name": winner, "kind": "strategy", "skipped": "the images have no classes"}]},
        },
    }
    write_json(root / "report" / "metrics.json", metrics)
    for name in ("real", "member/mlp-r0", "member/mlp-r1", f"strategy/{winner}", f"nearest/{winner}"):
        write_png(root / "report" / "figures" / f"{name}.png", np.zeros((8, 8, 3), np.uint8))
