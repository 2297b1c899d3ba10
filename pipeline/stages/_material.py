"""Images and networks for the strategies that look at more than features, opened when they ask."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.compute import Runtime
from pipeline.data.dataset import load_split
from pipeline.evaluation import store
from pipeline.evaluation.extractors import Extractor
from pipeline.evaluation.frechet import Matrix
from pipeline.evaluation.networks import NetworkConfig, Standardised
from pipeline.evaluation.ruler import Ruler
from pipeline.evaluation.saved import load_network
from pipeline.fusion.strategies._base import Images, Material
from pipeline.project import Project
from pipeline.recipes import EXTRACTORS
from pipeline.stages._pool import rows_of_halves
from pipeline.weights import load_discriminator, load_generator, load_profiles, read_config


def material_of(
    project: Project, runtime: Runtime, rulers: Sequence[Ruler], extractors: Mapping[str, Extractor]
) -> Material:
    """Return what the fuse stage's strategies may ask for; extractors: those of the rulers, by name."""

    def generator(name: str) -> nn.Module:
        return load_generator(project.snapshot(name), runtime.device)[0]

    def discriminator(name: str) -> nn.Module:
        return load_discriminator(project.snapshot(name), runtime.device)

    def configuration(name: str) -> dict[str, Any]:
        return read_config(project.snapshot(name)).to_json()

    def fit() -> Images:
        rows, _ = rows_of_halves(project, len(load_split(project.prepared, "val")))
        return images_of(project, "val", rows)

    def features(images: Tensor) -> tuple[Matrix, ...]:
        return tuple(ruler.relative(extractors[ruler.extractor].features(images).values) for ruler in rulers)

    def extractor(name: str) -> tuple[NetworkConfig, Standardised]:
        config, network = load_network(project.reference / EXTRACTORS / name)
        return config, network.to(runtime.device)

    return Material(
        generator,
        discriminator,
        configuration,
        train=partial(images_of, project, "train"),
        fit=fit,
        features=features,
        profiles=lambda name: load_profiles(project.snapshot(name)),
        extractor=extractor,
        judges=tuple(store.read_reference(project.reference)["judges"]),
        device=runtime.device,
        autocast=runtime.autocast,
        say=lambda text: print(f"fuse  {text}", flush=True),
    )


def images_of(project: Project, split: str, rows: NDArray[np.int64] | None = None) -> Images:
    """Return some rows of a split (None: all) in memory: images, and their classes where there are any."""
    opened = load_split(project.prepared, split)
    arrays = (opened.images, opened.labels)
    images, labels = (None if a is None else torch.from_numpy(np.array(a if rows is None else a[rows])) for a in arrays)
    assert images is not None
    return images, labels
