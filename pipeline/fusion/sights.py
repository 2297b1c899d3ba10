"""What a density ratio looks at images with: the extractors that decide, the maps inside those of them that have learnt
classes, and the principal components of the pixels.

A classifier's features hold what tells its classes apart; its maps, which cost no further pass, also what its last
layer has learnt to overlook and other classifiers have not. The principal components cost hardly anything and have
learnt no labels. Where the pixels are a judge they are left out: on what a judge sees nothing may be fitted.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.evaluation import own
from pipeline.evaluation.frechet import Matrix
from pipeline.evaluation.networks import Standardised, to_float, with_maps
from pipeline.evaluation.ruler import Ruler, choose_dims, fit_ruler
from pipeline.fusion.strategies._base import Companion, Material, Problem
from pipeline.randomness import derive_seed

PIXELS = "pixels"
COMPONENTS = 64  # of the pixels, and of a classifier's maps
KIMG = 10  # thousand training images at most that these components are of
STEP = 500


@dataclass(frozen=True)
class Sight:
    """A network, and the rulers of what it puts out.

    name: that of its folder below `extractors`. rulers: one for each part of the outputs, in their order. ends: where
    each part ends. companion: the network to store with the ratio, None for a copy of the reference's.
    """

    name: str
    network: Standardised
    rulers: tuple[Ruler, ...]
    ends: tuple[int, ...]
    companion: Companion | None = None

    def see(self, images: Tensor) -> tuple[Matrix, ...]:
        """Map uint8 N×C×S×S to N×d for each ruler, relative to the spread of real images."""
        batches = [np.split(outputs_of(self.network, part), self.ends[:-1], 1) for part in images.split(STEP)]
        return tuple(
            np.concatenate([ruler.relative(part) for part in parts])
            for ruler, parts in zip(self.rulers, zip(*batches, strict=True), strict=True)
        )


@dataclass(frozen=True)
class Whole:
    """All extractors that decide, where some are not ours: nobody looks into these, and nothing of them is stored.

    features: maps uint8 N×C×S×S to N×d for each ruler, relative to the spread of real images.
    """

    rulers: tuple[Ruler, ...]
    features: Callable[[Tensor], tuple[Matrix, ...]]
    name: str = "deciding"
    companion: None = None

    def see(self, images: Tensor) -> tuple[Matrix, ...]:
        return self.features(images)


@torch.inference_mode()
def outputs_of(network: Standardised, images: Tensor) -> np.ndarray:
    """Map uint8 N×C×S×S to the network's outputs N×D."""
    parts = (to_float(part.to(network.mean.device)) for part in images.split(STEP))
    return torch.cat([network(part)[0].cpu() for part in parts]).numpy()


def see(sights: Iterable[Sight | Whole], batches: Iterable[Tensor]) -> tuple[Matrix, ...]:
    """Return what all rulers of all sights see of batches of uint8 images, N×d for each."""
    rows = [[view for sight in sights for view in sight.see(images)] for images in batches]
    return tuple(np.concatenate(views) for views in zip(*rows, strict=True))


def sights_of(problem: Problem, material: Material, drawn: int) -> list[Sight | Whole]:
    """Return those that decide, and what else there is to look with; drawn: how many generated images there will be."""
    seed, (train, _) = derive_seed(problem.seed, "sights"), material.train()
    train = train[own.rows_to_learn_from(len(train), KIMG, seed)]
    images = min(len(problem.real), drawn)
    found: list[Sight | Whole]
    if foreign(problem):
        found = [Whole(problem.rulers, material.features)]
    else:
        found = [deciding(ruler, material, train, images) for ruler in problem.rulers]
    if PIXELS not in (*material.judges, *(ruler.extractor for ruler in problem.rulers)):
        config, network = own.learn(
            PIXELS, train.to(material.device), None, 0, kimg=KIMG, seed=seed, features=COMPONENTS
        )
        ruler = fit_ruler(PIXELS, outputs_of(network, train), components(config.features, images))
        companion = Companion(config.to_json(), network)
        found.append(Sight(PIXELS, network, (ruler,), (config.features,), companion))
    return found


def foreign(problem: Problem) -> list[str]:
    """Return the extractors that decide and are not ours."""
    return [ruler.extractor for ruler in problem.rulers if ruler.extractor not in own.OWN]


def deciding(ruler: Ruler, material: Material, train: Tensor, images: int) -> Sight:
    """Return an extractor that decides, with its maps where it has learnt classes."""
    config, network = material.extractor(ruler.extractor)
    if not config.classes:
        return Sight(ruler.extractor, network, (ruler,), (config.features,))
    wide, network = with_maps(config, network)
    maps = outputs_of(network, train)[:, config.features :]
    seen = fit_ruler(f"{ruler.extractor}-maps", maps, components(maps.shape[1], images))
    companion = Companion(wide.to_json(), network)
    return Sight(seen.extractor, network, (ruler, seen), (config.features, wide.features), companion)


def components(features: int, images: int) -> int:
    """Return how many components a ruler of so many features takes: few where there are few images, as for all."""
    most = min(features, COMPONENTS)
    return choose_dims("auto", most, images) or most
