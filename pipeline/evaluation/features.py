"""What an extractor makes of a set of images."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.evaluation import frechet


@dataclass(frozen=True)
class Features:
    """values: float32 N×D. logits: float32 N×K of the extractor's own classes, None where it has none."""

    values: np.ndarray
    logits: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def moments(self) -> frechet.Moments:
        """Their mean and covariance, found once however much is compared with them."""
        return frechet.moments(self.values)

    def take(self, rows: np.ndarray | slice) -> "Features":
        """Return the given rows."""
        return Features(self.values[rows], None if self.logits is None else self.logits[rows])
