"""Health of a training: losses that are no numbers or explode, and output that collapses until all images are alike.

Images are compared by their pixels pooled to 8×8, against as many real ones.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from pipeline.compute import Runtime
from pipeline.errors import ChorusError
from pipeline.training.objectives._base import Objective
from pipeline.training.state import State
from pipeline.training.streams import Streams

INTERVAL = 25_000  # images between checks
DRAWN = 256  # images that a check draws
PATIENCE = 2  # checks in a row that find the output collapsed before the training counts as failed
ROLLBACKS = 2  # how often a failed training goes back to its last healthy state

# Healthy trainings, after their first check, stay below the first by a factor of 50 and above the second by one of 5.
LOSS_BOUND = 1e4
VARIANCE = 0.02  # of the real images' variance
# Of their usual distance to the nearest one: real images nearly never have a neighbour so near, and of images that
# a healthy generator makes from two numbers, a fifth.
NEAR = 0.05
DUPLICATES = 0.5  # share of the drawn images that have one
# A generator that starts with less variance than this share of the real images' is young, not collapsed, while each
# check finds so many times more of it.
YOUNG = 0.1
GROWTH = 1.1

SIDE = 8  # of the pooled images
NO_NUMBERS = "generated images hold pixels that are no numbers"


class Unhealthy(ChorusError):
    """A training that cannot go on from where it is; the message names the member, the reason and the remedy."""

    def __init__(self, streams: Streams, nimg: int, reason: str) -> None:
        super().__init__(
            f"training {streams.family}/r{streams.replica}: {reason} after {nimg / 1000:g} kimg; lower "
            f"families.{streams.family}.lr, choose another loss or regularisers, or set compute.precision to fp32"
        )
        self.nimg, self.reason = nimg, reason


@dataclass(frozen=True)
class Reference:
    """What output is compared with: the real images' total variance, and their median distance to the nearest one."""

    variance: float
    distance: float


def is_due(nimg: int, batch: int) -> bool:
    """Whether the batch that ends at `nimg` images is followed by a check: one every 25 kimg."""
    return nimg // INTERVAL > (nimg - batch) // INTERVAL


def pooled(images: Tensor) -> Tensor:
    """Return images B×C×H×W in [-1, 1] as B×D vectors, averaged to at most 8×8 pixels."""
    side = (min(SIDE, images.shape[2]), min(SIDE, images.shape[3]))
    return adaptive_avg_pool2d(images.float(), side).flatten(1)


def nearest(vectors: Tensor) -> Tensor:
    """Return the distance of each of B×D vectors to the nearest other one (B; infinite for a single vector)."""
    distances = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.fill_diagonal_(math.inf).amin(1)


def reference_of(real: Tensor) -> Reference:
    """Return what generated images are compared with, from real ones, B×C×H×W in [-1, 1]."""
    vectors = pooled(real)
    return Reference(variance_of(real), float(nearest(vectors).median()))


def variance_of(images: Tensor) -> float:
    """Return the total variance of images, B×C×H×W in [-1, 1], as pooled."""
    return float(pooled(images).var(0, correction=0).sum())


def fault_of_losses(losses: dict[str, float]) -> str | None:
    """Return what is wrong with mean losses: a number that is none, or a loss beyond ±10,000; None if nothing is.

    Columns whose names begin with `loss` are losses; others need only be finite.
    """
    broken = [name for name, value in losses.items() if not math.isfinite(value)]
    if broken:
        return f"{', '.join(broken)} is no longer a number"
    exploded = [name for name, value in losses.items() if name.startswith("loss") and abs(value) > LOSS_BOUND]
    return f"{', '.join(exploded)} exploded to {losses[exploded[0]]:.3g}" if exploded else None


def collapse_of(images: Tensor, reference: Reference) -> str | None:
    """Return in which way generated images, B×C×H×W in [-1, 1], are all alike; None if they are not.

    Real images that are themselves all alike leave nothing to compare with.
    """
    variance = variance_of(images)
    if variance < VARIANCE * reference.variance:
        return f"the output collapsed: its variance is {variance / reference.variance:.2%} of the real images'"
    duplicates = float((nearest(pooled(images)) < NEAR * reference.distance).float().mean())
    if duplicates > DUPLICATES:
        return f"the output collapsed: {duplicates:.0%} of the images have a near duplicate among {len(images)}"
    return None


class Monitor:
    """Examines a training every 25 kimg, by images of the generators as they are, in the mode in which they train.

    The averaged generators would show a collapse late, by several of the average's half-lives.
    """

    def __init__(self, real: Tensor, objective: Objective, runtime: Runtime, streams: Streams) -> None:
        """real: at least one image, B×C×H×W in [-1, 1]."""
        self.reference = reference_of(real)
        self.objective, self.runtime, self.streams = objective, runtime, streams

    def begin(self, state: State) -> None:
        """Note in `state.variety` how much variety the generators have before their first step."""
        state.variety = min(map(variance_of, self.drawn(state)))

    def examine(self, state: State) -> None:
        """Set `state.healthy`, or count a suspicion; raises `Unhealthy` where something is no number, or at the second.

        A collapse counts when two examinations in a row find it: young generators pass through states without variety.
        """
        self.look_for_broken_numbers(state)
        drawn = self.drawn(state)
        if not all(bool(images.isfinite().all()) for images in drawn):
            raise Unhealthy(self.streams, state.nimg, NO_NUMBERS)
        collapses = [text for images in drawn if (text := collapse_of(images, self.reference))]
        variety = min(map(variance_of, drawn))
        young = state.variety is not None and GROWTH * state.variety < variety < YOUNG * self.reference.variance
        state.healthy = not collapses
        state.suspicions = state.suspicions + 1 if collapses and not young else 0
        if state.suspicions >= PATIENCE:
            raise Unhealthy(self.streams, state.nimg, collapses[0])
        if state.variety is not None:
            state.variety = max(variety, state.variety) if collapses else None

    def drawn(self, state: State) -> list[Tensor]:
        """Return images of each member's generator as it is."""
        live = dataclasses.replace(state, average=state.networks["generator"])
        return [self.draw(networks["generator"]) for networks in self.objective.members(live)]

    def look_for_broken_numbers(self, state: State) -> None:
        """Raise `Unhealthy` where a weight is no number: the losses tell of the weights before the last step."""
        for role, network in state.networks.items():
            if not all(bool(weight.isfinite().all()) for weight in network.parameters()):
                raise Unhealthy(self.streams, state.nimg, f"the {role} holds weights that are no numbers")

    @torch.no_grad()
    def draw(self, generator: nn.Module) -> Tensor:
        """Return images of the same latents each time; the generator's buffers stay as they are."""
        network: Any = generator
        device = self.runtime.device
        z = self.streams.normal(DRAWN, network.latent, purpose="health").to(device)
        y = self.streams.labels(DRAWN, network.class_shares, purpose="health-labels")
        kept = [buffer.clone() for buffer in generator.buffers()]
        with self.runtime.autocasting():
            images = network(z, None if y is None else y.to(device))
        for buffer, value in zip(generator.buffers(), kept, strict=True):
            buffer.copy_(value)
        return images.float()
