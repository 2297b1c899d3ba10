"""Classification accuracy: how well a classifier that learns from generated images tells real ones' classes.

Ravuri and Vinyals, "Classification accuracy score for conditional generative models", arXiv:1905.10887. With the real
images added it measures data augmentation.
"""

import math
from typing import Any

import numpy as np

from pipeline.evaluation.fresh import Labelled, classifier, right
from pipeline.evaluation.proportion import Proportion, gain

PASSES = 4  # how often a classifier sees each image at least, on average


def learnable(images: int, kimg: float) -> int:
    """Return how many images are enough for a classifier that sees `kimg` thousand: so few that each comes often."""
    return min(images, max(math.floor(kimg * 1000 / PASSES), 1))


def learnt_from(data: Labelled, held_out: Labelled, classes: int, *, kimg: float, seed: int) -> np.ndarray:
    """Return which of the held-out real images a classifier tells rightly that learnt from `data`, as booleans."""
    return right(classifier(data, classes, kimg=kimg, seed=seed), held_out)


def classification_accuracy(
    real: Labelled,
    generated: Labelled,
    held_out: Labelled,
    of_real: np.ndarray,
    classes: int,
    *,
    kimg: float,
    seed: int,
) -> dict[str, Any]:
    """Return the accuracies on real held-out images, each with its 95 % interval.

    real, generated: as many images of each, with the same labels. of_real: what `learnt_from` makes of the real ones
    with this budget and seed. Keys: `generated` (learnt from generated images alone), `both` (from real and generated
    ones, with no more steps) and `gain` (of both over real alone, on the same held-out images). The intervals are
    those of the held-out images; that another training comes out otherwise is not in them.
    """
    of_generated = learnt_from(generated, held_out, classes, kimg=kimg, seed=seed)
    of_both = learnt_from(real.join(generated), held_out, classes, kimg=kimg, seed=seed)
    return {
        "generated": Proportion.of(of_generated).to_json(),
        "both": Proportion.of(of_both).to_json(),
        "gain": gain(of_real, of_both),
    }
