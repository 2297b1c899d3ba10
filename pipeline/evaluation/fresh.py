"""Fresh classifiers: small networks that learn two kinds or several classes of images and are asked about others."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.evaluation.learning import Task, learn_classes
from pipeline.evaluation.networks import NetworkConfig, to_float

KIND, FEATURES = "plain", 64
ROWS_AT_ONCE = 500


@dataclass(frozen=True)
class Labelled:
    """images: uint8 N×C×S×S. labels: int64 N, on the same device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def join(self, other: "Labelled") -> "Labelled":
        """Return the images of both."""
        return Labelled(torch.cat([self.images, other.images]), torch.cat([self.labels, other.labels]))


def classifier(data: Labelled, classes: int, *, kimg: float, seed: int) -> nn.Module:
    """Train a classifier of `classes` classes on `kimg` thousand images; the seed decides its first weights."""
    _, channels, size, _ = data.images.shape
    config = NetworkConfig(KIND, channels, size, FEATURES, classes)
    return learn_classes(config, Task(data.images, data.labels, kimg, seed))


@torch.inference_mode()
def right(network: nn.Module, data: Labelled) -> np.ndarray:
    """Return N booleans: which of the images the classifier puts into their class."""
    parts = zip(data.images.split(ROWS_AT_ONCE), data.labels.split(ROWS_AT_ONCE), strict=True)
    return torch.cat([network(to_float(images))[1].argmax(1) == labels for images, labels in parts]).cpu().numpy()
