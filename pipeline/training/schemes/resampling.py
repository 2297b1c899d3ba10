"""Which training images an epoch goes through: a bootstrap, or a draw by weights."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.randomness import generator
from pipeline.training.streams import Streams


def bootstrap(n: int, streams: Streams) -> Tensor:
    """Draw `n` of `n` images with replacement: a member's rows, int64 (Breiman 1996, "Bagging Predictors").

    About 63 % of the images are among them, 1 - 1/e.
    """
    return torch.randint(n, (n,), generator=generator(streams.seed_of("bootstrap")))


def resample(weights: NDArray[np.float64], streams: Streams) -> Tensor:
    """Draw as many images as there are weights, with replacement and by the weights: a member's rows, int64."""
    random = generator(streams.seed_of("resample"))
    return torch.multinomial(torch.from_numpy(weights), len(weights), replacement=True, generator=random)
