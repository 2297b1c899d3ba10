"""A two-sample test that reads no moments: whether a fresh classifier tells generated images from real ones.

Lopez-Paz and Oquab, "Revisiting classifier two-sample tests", arXiv:1610.06545, section 3.
"""

import torch
from torch import Tensor

from pipeline.evaluation.fresh import Labelled, classifier, right
from pipeline.evaluation.proportion import Proportion

CHANCE = 0.5


def told_apart(fit: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor], *, kimg: float, seed: int) -> Proportion:
    """Train a classifier on real and generated images and count how many others it tells rightly.

    fit, held_out: (real, generated) images, uint8 N×C×S×S on one device, four disjoint draws; the longer of a pair is
    cut, so that kinds are balanced. kimg: thousand images that the classifier sees.

    Where both come from one distribution a held-out image is told rightly with chance 1/2, whatever the classifier has
    learnt: the p-value against that is valid for every network and budget. How small a difference is found depends on
    both, so a share near 1/2 says that this classifier found none, and no more.
    """
    network = classifier(balanced(*fit), 2, kimg=kimg, seed=seed)
    return Proportion.of(right(network, balanced(*held_out)))


def balanced(real: Tensor, generated: Tensor) -> Labelled:
    """Return as many real images, of class 1, as generated ones, of class 0."""
    n = min(len(real), len(generated))
    labels = torch.tensor([1, 0], device=real.device).repeat_interleave(n)
    return Labelled(torch.cat([real[:n], generated[:n]]), labels)
