"""Rejection of latents, before anything is drawn from them."""

from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from pipeline.fusion.rejection import first_kept
from pipeline.fusion.samplers import BLOCK, CandidateSampler, Sampler, classes_of, latents
from pipeline.layers.operations import operations


def starts(source: CandidateSampler, rows: Tensor, seed: int, labels: Tensor | None = None) -> Tensor:
    """Return what a candidate draws these images from: latents and, beside them, their classes one-hot, B×D.

    D is the length of a latent and the number of classes. rows, seed, labels: as of `Sampler.at`.
    """
    z = latents(rows, source.latent, seed)
    y = classes_of(rows, source.shares, seed) if labels is None else labels
    return z if y is None else torch.cat([z, one_hot(y, source.classes).to(z.dtype)], 1)


def images_from(source: CandidateSampler, begun: Tensor) -> Tensor:
    """Return the images B×C×H×W of such rows."""
    z, y = begun.split([source.latent, source.classes], 1)
    return source.images(z, y.argmax(1) if source.classes else None)


class LatentSampler(Sampler):
    """Images of one generator from latents that were rejected by what a network tells of them (Issenhuth et al. 2022,
    "Latent reweighting, an almost free improvement for GANs", section 3).

    rater: maps `starts` B×D to the logarithms of the probabilities with which they are kept; values above 0 count as 0.
    tries: latents that an image has; after as many the one that is rated highest is taken. acceptance: the share that
    is kept. An image is one pass of the generator, and 1 / acceptance of the rater, which is small.
    """

    def __init__(self, source: CandidateSampler, rater: nn.Module, tries: int, acceptance: float) -> None:
        self.source, self.rater, self.tries, self.acceptance = source, rater, tries, acceptance
        self.classes = source.classes

    @property
    def cost(self) -> float:
        return self.source.cost * (1 + self.rating_cost / self.acceptance)

    @cached_property
    @torch.inference_mode()
    def rating_cost(self) -> float:
        """Operations of the rater's pass over those of drawing an image."""
        begun = starts(self.source, torch.arange(BLOCK), 0).to(self.source.device)
        return operations(lambda: self.rater(begun)) / operations(lambda: images_from(self.source, begun))

    @torch.inference_mode()
    def at(self, rows: Tensor, seed: int, labels: Tensor | None = None) -> Tensor:
        def draw(left: Tensor, stream: int, wanted: Tensor | None) -> Tensor:
            return starts(self.source, left, stream, wanted)

        def rate(begun: Tensor) -> Tensor:
            return self.rater(begun.to(self.source.device))

        return images_from(self.source, first_kept(draw, rate, rows, seed, labels, self.tries))
