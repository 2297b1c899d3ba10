"""How densely a mixture of generators covers each training image, by a classifier of real and generated images."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pipeline.compute import Runtime
from pipeline.layers.conditional import Head, Layers
from pipeline.layers.convolutional import Down, ToVector, pyramid
from pipeline.models._base import ModelConfig, architecture
from pipeline.params import Family
from pipeline.training.loop import Data, batch_at
from pipeline.training.optimizers import build_optimizer
from pipeline.training.streams import Streams

SHARE = 0.25  # of a member's budget, spent beside it
SURE = 30.0  # largest logit that counts
CHUNK = 256


def density_ratios(classifier: nn.Module, data: Data, runtime: Runtime) -> NDArray[np.float64]:
    """Return h = dP_mixture/dP_data at each of the N images, estimated up to the classifier's error; they average 1.

    With d the classifier's probability of `real`, h = (1 - d)/d (Tolstikhin et al. 2017, section 3.3). A true ratio
    averages 1 over the data; a classifier that is sure of itself makes all of them small, so they are divided by their
    mean: what counts is which images are covered less than others.
    """
    logits = np.concatenate([_logits(classifier, data, start, runtime) for start in range(0, len(data.images), CHUNK)])
    ratios = np.exp(-logits.clip(-SURE, SURE))
    normalised: NDArray[np.float64] = ratios / ratios.mean()
    return normalised


def train_classifier(
    data: Data, mixture: nn.Module, family: Family, config: ModelConfig, runtime: Runtime, streams: Streams
) -> Iterator[nn.Module]:
    """Train a classifier whose logit is high where an image is real, yielding it after every step.

    It sees real images for a quarter of the family's `kimg`, each batch together with as many of the mixture, so that
    batch statistics tell nothing. Cross-entropy. After the last step it is in evaluation mode.
    """
    with torch.random.fork_rng():
        torch.manual_seed(streams.seed_of("classifier"))
        classifier = build_classifier(config)
    classifier = classifier.to(runtime.device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = build_optimizer(classifier, family, family.lr_discriminator or family.lr)
    everything = Data(data.images, data.labels)
    latent: Any = mixture.latent
    target = torch.cat([torch.ones(family.batch), torch.zeros(family.batch)]).to(runtime.device)
    for step in range(steps := max(1, math.ceil(SHARE * family.kimg * 1000 / family.batch))):
        nimg = step * family.batch
        real, labels = everything.at(streams.order(nimg, family.batch, len(everything)))
        z = streams.normal(family.batch, latent, purpose="classifier-latent", nimg=nimg).to(runtime.device)
        torch.manual_seed(streams.seed_of("classifier-dropout", nimg))
        with runtime.autocasting():
            with torch.no_grad():
                fake = mixture(z, labels)
            both = torch.cat([real, fake.to(real.dtype)])
            logits = classifier(both, None if labels is None else labels.repeat(2))
        binary_cross_entropy_with_logits(logits.float(), target).backward()
        optimizer.step()
        optimizer.zero_grad()
        classifier.train(step + 1 < steps)
        yield classifier


def build_classifier(config: ModelConfig) -> nn.Module:
    """Build the discriminator of the configuration's architecture, or a plain one where it has none."""
    build = architecture(config.architecture).discriminator or plain_classifier
    return build(config)


def plain_classifier(config: ModelConfig) -> nn.Module:
    """Build strided convolutions down to the logit, without normalisation; B×C×H×W, and B labels, to B logits."""
    base, channels = pyramid(config.size, config.width)
    layers: list[nn.Module] = []
    for before, after in pairwise([config.channels, *reversed(channels)]):
        layers += [Down(before, after, bias=True), nn.LeakyReLU(0.2, inplace=True)]
    return Layers(*layers, ToVector(), Head(channels[0] * base**2, config.classes))


@torch.inference_mode()
def _logits(classifier: nn.Module, data: Data, start: int, runtime: Runtime) -> NDArray[np.float64]:
    """Return the logits of a chunk of images, float64."""
    rows: Tensor = torch.arange(start, min(start + CHUNK, len(data.images)))
    labels = None if data.labels is None else data.labels[rows.to(data.labels.device)]
    with runtime.autocasting():
        logits: Tensor = classifier(batch_at(data.images, rows), labels)
    return logits.double().cpu().numpy()
