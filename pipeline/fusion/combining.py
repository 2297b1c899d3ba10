"""Training of a combiner: the second level over generators that stay as they are."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from pipeline.compute import Runtime
from pipeline.fusion.strategies._base import Companion, Fusion, Images, Material, NotApplicableError, Problem
from pipeline.layers.combiner import Stack
from pipeline.models._base import ModelConfig
from pipeline.params import Family
from pipeline.training import loop
from pipeline.training.health import Unhealthy
from pipeline.training.loop import Data
from pipeline.training.state import State
from pipeline.training.streams import Streams

WIDTH = 32  # of the combiner and of its discriminator
BATCH = 64
LR = 2e-4


def stack(problem: Problem, name: str, images: str) -> Fusion:
    """Return the fusion `name` of each member's nearest snapshot, the nearest first, by a combiner that it trains.

    images: `train` or `fit`, what the combiner sees as real. Raises `NotApplicableError` where there is nothing to
    combine, no budget, or the training fails.
    """
    kimg, material = problem.settings.stacking_kimg, problem.material
    nearest = {candidate.id for candidate in problem.best_of_each_member()}
    ids = [candidate.id for candidate in problem.ranked() if candidate.id in nearest]
    if len(ids) < 2:
        raise NotApplicableError("there is one member, and nothing to combine it with")
    if not kimg:
        raise NotApplicableError("fusion.stacking_kimg is 0: no combiner is trained")
    if material is None:
        raise NotApplicableError("there are no images and networks to train a combiner with")
    real = material.train() if images == "train" else material.fit()
    try:
        combiner = train_combiner(ids, real, kimg, material, Streams(problem.seed, name, 0))
    except Unhealthy as fault:
        raise NotApplicableError(f"its training failed after {fault.nimg / 1000:g} kimg: {fault.reason}") from None
    own = f"combiners/{name}"
    parts = [{"kind": "candidate", "id": name} for name in ids]
    recipe = {"kind": "stack", "parts": parts, "companions": {"combiner": own}}
    evidence = {"weights": {name: 1 / len(ids) for name in ids}, "kimg": kimg, "real_images": len(real[0])}
    return Fusion(recipe, evidence, {own: combiner})


def train_combiner(ids: Sequence[str], real: Images, kimg: float, material: Material, streams: Streams) -> Companion:
    """Return the averaged combiner of these candidates after `kimg` thousand images.

    It trains as any GAN does (nonsaturating loss, DCGAN's discriminator, fresh), only that all of the generator but
    its last network stays as it is. Raises `Unhealthy` as any training does.
    """
    runtime = Runtime(material.device, material.autocast)
    generators = [material.generator(name) for name in ids]
    parts = tuple(ModelConfig.from_json(material.configuration(name)) for name in ids)
    shape = Stack(generators, nn.Identity())
    config = ModelConfig(
        "stack",
        parts[0].channels,
        parts[0].size,
        shape.latent,
        WIDTH,
        class_shares=shape.class_shares,
        parts=parts,
    )
    batch = min(BATCH, len(real[0]))
    family = Family(architecture="dcgan", kimg=kimg, batch=batch, lr=LR, width=WIDTH, loss="nonsaturating")
    images, labels = real
    data = Data(images.to(runtime.device), None if labels is None or not config.classes else labels.to(runtime.device))
    state = loop.build(family, config, runtime, streams)
    give_parts(state, generators)
    total = 1000 * kimg
    for _ in loop.train(data, family, config, runtime, streams, state):
        if state.nimg * 4 // total > (state.nimg - batch) * 4 // total:
            material.say(f"{streams.family:<18}{state.nimg / 1000:.0f}/{kimg:g} kimg")
    average: Any = state.average
    made = {"kind": "combiner", "channels": config.channels, "parts": len(ids), "width": WIDTH}
    return Companion(made, average.combiner.eval())


def give_parts(state: State, generators: Sequence[nn.Module]) -> None:
    """Put trained generators in the places of those that a stack, and its average, were built with."""
    for whole in (state.networks["generator"], state.average):
        stacked: Any = whole
        for part, trained in zip(stacked.parts, generators, strict=True):
            part.load_state_dict(trained.state_dict())
