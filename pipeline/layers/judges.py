"""Discriminators made of discriminators, and ones with several outputs: each also gives one logit an image."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pipeline.layers.conditional import Labelled


class Panel(Labelled):
    """Several discriminators of one generator (Durugkar, Gemp, Mahadevan 2017, "Generative Multi-Adversarial
    Networks"). As one it judges by the mean of their logits, where a panel that trains a generator weighs each.
    """

    def __init__(self, judges: Iterable[nn.Module]) -> None:
        super().__init__()
        self.judges = nn.ModuleList(judges)

    def each(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×C×H×W, and B labels where there are classes, to the logits of all k, k×B."""
        return torch.stack([judge(images, y) for judge in self.judges])

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×C×H×W, and B labels where there are classes, to B logits."""
        return self.each(images, y).mean(0)


class Identifier(Labelled):
    """A discriminator that also tells k generators apart (Ghosh et al. 2018, "Multi-Agent Diverse Generative
    Adversarial Networks"): a softmax over k + 1 scores, of the generators in their order and, last, of real images.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def scores(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×C×H×W, and B labels where there are classes, to B×(k+1) scores."""
        return self.network(images, y)

    def forward(self, images: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×C×H×W, and B labels where there are classes, to B logits of being real."""
        return log_odds(self.scores(images, y))


def log_odds(scores: Tensor) -> Tensor:
    """Map scores …×(k+1) to the log-odds of the last one: its softmax is the sigmoid of this."""
    return scores[..., -1] - scores[..., :-1].logsumexp(-1)
