"""The extractors that the reference stage trains: which network learns in which way under each name."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.errors import ChorusError
from pipeline.evaluation.learning import Task, learn_classes, learn_code, learn_pixels, learn_views, standardise, unseen
from pipeline.evaluation.networks import NetworkConfig, Standardised
from pipeline.randomness import derive_seed, generator


@dataclass(frozen=True)
class Own:
    """kind: of network (`networks.KINDS`). features: how many at most. labelled: whether it needs classes."""

    kind: str
    features: int
    learn: Callable[[NetworkConfig, Task], nn.Module]
    labelled: bool = False


# Of the two label-free ones the contrastive is the default: the classes are as readable from both, a missing class
# shows as clearly, and noise, blur and checkerboards show far more (benchmarks/extractors.py).
OWN = {
    "classifier": Own("plain", 64, learn_classes, labelled=True),
    "classifier-b": Own("residual", 64, learn_classes, labelled=True),
    "selfsup": Own("plain", 64, learn_views),
    "selfsup-b": Own("autoencoder", 32, learn_code),
    "pixels": Own("pixels", 32, learn_pixels),
}


def rows_to_learn_from(images: int, kimg: float, seed: int) -> Tensor:
    """Return the row numbers, in order, of at most as many images as the budget lets a network see."""
    wanted = min(images, math.ceil(kimg * 1000))
    return torch.randperm(images, generator=generator(seed, "reference", "rows"))[:wanted].sort().values


def learn(
    name: str,
    images: Tensor,
    labels: Tensor | None,
    classes: int,
    *,
    kimg: float,
    seed: int,
    features: int | None = None,
    progress: Callable[[int, float], None] = unseen,
) -> tuple[NetworkConfig, Standardised]:
    """Train one of our extractors.

    images: uint8 N×C×S×S on the device, N at least 2. labels: int64 N in [0, classes), None where there are none.
    kimg: thousand images seen. features: how many at most, None for as many as the extractor has. progress: called with
    (images seen, loss). Raises `ChorusError` for a classifier without at least two classes.
    """
    own = OWN[name]
    if own.labelled and (labels is None or classes < 2):
        raise ChorusError(
            f"extractor '{name}' learns classes and the data have none: take it out of reference.selection and "
            "reference.judges, or sort the images into one folder a class"
        )
    _, channels, size, _ = images.shape
    features = min(features or own.features, channels * size**2)
    config = NetworkConfig(own.kind, channels, size, features, classes if own.labelled else 0)
    task = Task(images, labels, kimg, derive_seed(seed, "reference", name), progress)
    return config, standardise(own.learn(config, task), config, task)
