"""Images and networks for strategies that look at more than features, of members that nobody trained."""

import numpy as np
import torch

from pipeline.evaluation import own
from pipeline.evaluation.networks import NetworkConfig, build
from pipeline.fusion.strategies._base import Material
from pipeline.models._base import ModelConfig, build_discriminator, build_generator
from pipeline.randomness import derive_seed
from tests.factories import structured_images

CONFIG = ModelConfig("mlp", 1, 8, 4, 4)


def built(build, name, config=CONFIG):
    """The network that `build` makes of a configuration, its weights drawn by the candidate's name."""
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(name))
        return build(config).eval().requires_grad_(False)


def images(n, seed):
    labels = np.arange(n, dtype=np.int64) % 3
    return torch.from_numpy(structured_images(n, 8, 1, labels, seed)), torch.from_numpy(labels)


def extractor(name, size=8):
    """An extractor that nobody trained; of the names that are known to read classes, one of them."""
    kind, classes = ("plain", 3) if own.OWN[name].labelled else ("autoencoder", 0)
    config = NetworkConfig(kind, 1, size, 12, classes)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(name))
        return config, build(config).eval().requires_grad_(False)


def averages(name, config=CONFIG):
    """Stored averages of a candidate's weights, each other numbers."""
    of = {width: built(build_generator, f"{name} {width}", config) for width in (0.05, 0.10)}
    return {width: dict(network.named_parameters()) for width, network in of.items()}


def features(given):
    """What the two rulers of the strategies' tests see of images: two pixels, and the first again on another scale."""
    two = given.flatten(1)[:, :2].double().numpy() / 127.5 - 1
    return two, two[:, :1] / 10


def material(config=CONFIG, n_train=96, n_fit=40, profiles=None):
    return Material(
        generator=lambda name: built(build_generator, name, config),
        discriminator=lambda name: built(build_discriminator, name, config),
        configuration=lambda name: config.to_json(),
        train=lambda: images(n_train, 0),
        fit=lambda: images(n_fit, 1),
        features=features,
        profiles=profiles or (lambda name: {}),
        extractor=extractor,
        judges=("pixels",),
        device=torch.device("cpu"),
        autocast=None,
        say=lambda text: None,
    )
