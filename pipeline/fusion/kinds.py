"""The kinds of samplers that a recipe can name, and building one."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipeline.errors import ChorusError
from pipeline.fusion.critic import FusedCritic, Reading
from pipeline.fusion.latent import LatentSampler
from pipeline.fusion.moe import MoeSampler, Router
from pipeline.fusion.ratio import ImageRatio, Ratio
from pipeline.fusion.refine import RefineSampler
from pipeline.fusion.rejection import RejectionSampler
from pipeline.fusion.samplers import AverageSampler, CandidateSampler, MixtureSampler, Sampler, VoteSampler
from pipeline.layers.combiner import Stack


def no_companion(name: str) -> nn.Module:
    raise ChorusError(f"nothing says where the network {name} lies")


@dataclass(frozen=True)
class Loader:
    """How to load the networks that a recipe names.

    generator, discriminator: a candidate's, by its id. companion: any other network, by FOLDER/NAME; not needed for a
    recipe that names none.
    """

    generator: Callable[[str], nn.Module]
    discriminator: Callable[[str], nn.Module]
    companion: Callable[[str], nn.Module] = no_companion


def build_sampler(recipe: dict[str, Any], load: Loader, device: torch.device | str = "cpu") -> Sampler:
    """Build the sampler that a recipe describes.

    recipe: one of the kinds below; what stands for `...` in `parts` and `source` are recipes, IDs are candidates'.
    `{"kind": "candidate", "id": ID}`
    `{"kind": "mixture" | "average", "weights": [W, ...], "parts": [...]}`
    `{"kind": "vote", "source": ..., "critics": [ID, ...], "draws": K}`
    `{"kind": "refine", "weights": [W, ...], "parts": [...], "critics": [ID, ...], "readings": [{"slope": S,
    "intercept": I}, ...], "steps": K, "step_size": E}`
    `{"kind": "rejection", "source": ..., "tries": K, "acceptance": A, "companions": {"ratio": FOLDER/NAME, EXTRACTOR:
    FOLDER/NAME, ...}}`
    `{"kind": "latents", "source": a candidate, "tries": K, "acceptance": A, "companions": {"rater": FOLDER/NAME}}`
    `{"kind": "moe", "weights": [W, ...], "parts": [...], "by_class": true, "shares": [S, ...], "table": [[W, ...],
    ...]}`, with a row of the table for each class; `weights` only tells what comes from each part in all. With parts
    that cannot be asked also `"companions": {"router": "extractors/EXTRACTOR"}, "head": {"weights": [[W, ...], ...],
    "biases": [B, ...]}, "found": [[S, ...], ...]`
    `{"kind": "stack", "parts": [...], "companions": {"combiner": FOLDER/NAME}}`
    A node that needs other networks than those of candidates names them under `companions`, by their use. Raises
    `ChorusError` for an unknown kind.
    """

    def build(node: dict[str, Any]) -> Sampler:
        return build_sampler(node, load, device)

    def routing(node: dict[str, Any]) -> dict[str, Any]:
        if "companions" not in node:
            return {}
        router = Router(load.companion(node["companions"]["router"]), **node["head"])
        return {"router": router.to(device).eval(), "found": node["found"]}

    match node := recipe:
        case {"kind": "candidate", "id": name}:
            return CandidateSampler(load.generator(name), device)
        case {"kind": "mixture"}:
            return MixtureSampler([build(part) for part in node["parts"]], node["weights"])
        case {"kind": "average"}:
            parts = [CandidateSampler(load.generator(part["id"]), device) for part in node["parts"]]
            return AverageSampler(parts, node["weights"])
        case {"kind": "vote"}:
            critics = [load.discriminator(name).to(device) for name in node["critics"]]
            return VoteSampler(build(node["source"]), critics, node["draws"])
        case {"kind": "refine"}:
            parts = [CandidateSampler(load.generator(part["id"]), device) for part in node["parts"]]
            readings = [Reading.from_json(reading) for reading in node["readings"]]
            critic = FusedCritic([load.discriminator(name) for name in node["critics"]], readings).to(device).eval()
            walks = [RefineSampler(part, critic, node["steps"], node["step_size"]) for part in parts]
            return MixtureSampler(walks, node["weights"])
        case {"kind": "stack", "companions": companions}:
            generators = [load.generator(part["id"]) for part in node["parts"]]
            return CandidateSampler(Stack(generators, load.companion(companions["combiner"])), device)
        case {"kind": "rejection", "companions": companions}:
            ratio = load.companion(companions["ratio"])
            assert isinstance(ratio, Ratio)
            networks = {name: load.companion(companions[name]) for name in ratio.extractors}
            rating = ImageRatio(ratio, networks).to(device).eval()
            return RejectionSampler(build(node["source"]), rating, node["tries"], node["acceptance"])
        case {"kind": "latents", "companions": companions}:
            source = CandidateSampler(load.generator(node["source"]["id"]), device)
            rater = load.companion(companions["rater"]).to(device).eval()
            return LatentSampler(source, rater, node["tries"], node["acceptance"])
        case {"kind": "moe"}:
            experts = [build(part) for part in node["parts"]]
            return MoeSampler(experts, node["shares"], node["table"], by_class=node["by_class"], **routing(node))
    raise ChorusError(f"unknown sampler kind {recipe.get('kind')!r} in the recipe: this code is older than the model")
