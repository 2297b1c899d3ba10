"""The members' discriminators as one judge of images: real or generated.

Each discriminator has seen one generator only, and its logits are on a scale of its own. So each is read anew, on real
images that none was trained on and on images of all members: as log-odds (Platt 1999, "Probabilistic outputs for
support vector machines") and as its rank among the real images. The judge is the mean of either. It knows what sets
*these* generators apart from real images, and is no density ratio of any other.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.evaluation.networks import to_float
from pipeline.fusion.samplers import BLOCK

RULES = ("average", "vote")
QUANTILES = 128  # of the real images' logits: ranks are this fine
PENALTY = 1e-5  # on the squared slope, so that discriminators that make no error keep a finite one
STEPS = 50

Logits = NDArray[np.float64]


@dataclass(frozen=True)
class Reading:
    """How one discriminator's logits are read.

    slope, intercept: the log-odds that an image is real are slope·logit + intercept, where as many are real as are
    generated. A slope of 0 says that the discriminator tells nothing. quantiles: of the real images' logits, ascending;
    only ranks need them.
    """

    slope: float
    intercept: float
    quantiles: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Reading":
        """Read what `to_json` wrote."""
        return cls(content["slope"], content["intercept"], tuple(content.get("quantiles", ())))


def read_logits(real: Logits, generated: Logits) -> Reading:
    """Return the reading of a discriminator from its logits for N real and M generated images, all finite.

    Both kinds weigh the same. The slope is that of a logistic regression by Newton's method, or 0 where generated
    images look more real than real ones.
    """
    both = np.concatenate([real, generated])
    middle, spread = both.mean(), both.std() or 1.0
    x = np.stack([(both - middle) / spread, np.ones_like(both)], axis=1)
    y = np.repeat([1.0, 0.0], [len(real), len(generated)])
    shares = np.repeat([0.5 / len(real), 0.5 / len(generated)], [len(real), len(generated)])
    weights, penalty = np.zeros(2), np.array([PENALTY, 0.0])
    for _ in range(STEPS):
        odds = 1 / (1 + np.exp(-(x @ weights)))
        gradient = x.T @ (shares * (odds - y)) + penalty * weights
        hessian = (x * (shares * odds * (1 - odds))[:, None]).T @ x + np.diag(penalty)
        # No more than 1 at once: far from the optimum of kinds that are well apart, the curvature all but vanishes.
        step = np.clip(np.linalg.solve(hessian + 1e-12 * np.eye(2), gradient), -1, 1)
        weights = weights - step
        if np.abs(step).max() < 1e-10:
            break
    slope = max(float(weights[0] / spread), 0.0)
    intercept = float(weights[1] - slope * middle) if slope else 0.0
    levels = (np.arange(QUANTILES) + 0.5) / QUANTILES
    return Reading(slope, intercept, tuple(np.quantile(real, levels).tolist()))


class FusedCritic(nn.Module):
    """Discriminators and how each is read."""

    def __init__(self, critics: Sequence[nn.Module], readings: Sequence[Reading]) -> None:
        super().__init__()
        self.critics = nn.ModuleList(critics)
        self.slopes: Tensor
        self.intercepts: Tensor
        self.quantiles: Tensor
        self.register_buffer("slopes", torch.tensor([reading.slope for reading in readings]))
        self.register_buffer("intercepts", torch.tensor([reading.intercept for reading in readings]))
        self.register_buffer("quantiles", torch.tensor([reading.quantiles for reading in readings]))

    def logits(self, images: Tensor) -> Tensor:
        """Map B×C×H×W in [-1, 1], of any class, to the logits of all k, k×B."""
        return torch.stack([critic(images).float() for critic in self.critics])

    def forward(self, images: Tensor) -> Tensor:
        """Map B×C×H×W in [-1, 1] to the mean of the log-odds that they are real, B."""
        return (self.slopes[:, None] * self.logits(images) + self.intercepts[:, None]).mean(0)

    def ranks(self, images: Tensor) -> Tensor:
        """Map B×C×H×W in [-1, 1] to the mean share of real images that look less real, B in [0, 1]."""
        logits = self.logits(images).contiguous()
        below = torch.searchsorted(self.quantiles, logits) + torch.searchsorted(self.quantiles, logits, right=True)
        return (below / (2 * QUANTILES)).mean(0)

    @torch.inference_mode()
    def scores(self, images: Tensor, rule: str) -> Tensor:
        """Map uint8 N×C×H×W to N in [0, 1], on the CPU: 1 is real.

        rule: `average` (the sigmoid of `forward`) or `vote` (`ranks`, of which real images have any alike).
        """
        found = [torch.zeros(0)]
        for batch in images.split(BLOCK):
            shown = to_float(batch.to(self.slopes.device))
            found.append((self(shown).sigmoid() if rule == "average" else self.ranks(shown)).cpu())
        return torch.cat(found)


def auc(real: Logits, generated: Logits) -> float:
    """Return the probability that a real image scores higher than a generated one, ties counting half.

    The area under the ROC curve (Hanley and McNeil 1982): 1 tells all apart, 0.5 none.
    """
    order = np.sort(np.asarray(generated))
    below = np.searchsorted(order, real, side="left") + np.searchsorted(order, real, side="right")
    return float(below.mean() / (2 * len(order)))


def areas_of(critic: FusedCritic, real: Tensor, generated: Tensor) -> dict[str, float]:
    """Return the area under the ROC curve of real against generated images by each rule."""
    return {rule: auc(critic.scores(real, rule).numpy(), critic.scores(generated, rule).numpy()) for rule in RULES}
