"""A member's random streams: each draw depends on what it is for and on the images seen, on nothing before it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from pipeline.randomness import derive_seed, generator


@dataclass
class Streams:
    """Random numbers of one member; a resumed training draws what an uninterrupted one would have drawn.

    replicas: how many train as one, from `replica` on; what is drawn here is the first one's (see `each`).
    """

    seed: int
    family: str
    replica: int
    replicas: int = 1
    _epoch: tuple[int, int, Tensor] | None = field(default=None, repr=False)

    @cached_property
    def parts(self) -> tuple["Streams", ...]:
        """The streams of each replica by itself."""
        return tuple(Streams(self.seed, self.family, self.replica + index) for index in range(self.replicas))

    def each(self, draw: Callable[["Streams"], Tensor]) -> Tensor:
        """Return what `draw` draws for each of the replicas that train as one, stacked; for a single one, as it is."""
        return draw(self) if self.replicas == 1 else torch.stack([draw(part) for part in self.parts])

    def seed_of(self, purpose: str, nimg: int = 0) -> int:
        """Return the seed of what is drawn for `purpose` after `nimg` images."""
        return derive_seed(self.seed, self.family, self.replica, purpose, nimg)

    def normal(self, *shape: int, purpose: str, nimg: int = 0) -> Tensor:
        """Draw standard normal numbers on the CPU, so that every device sees the same."""
        random = generator(self.seed, self.family, self.replica, purpose, nimg)
        return torch.randn(*shape, generator=random)

    def labels(self, count: int, shares: Sequence[float], purpose: str) -> Tensor | None:
        """Draw classes (int64, `count`) as often as `shares` says; None for a model that knows no classes."""
        if not len(shares):
            return None
        random = generator(self.seed, self.family, self.replica, purpose, 0)
        return torch.multinomial(torch.tensor(shares), count, True, generator=random)

    def order(self, nimg: int, count: int, n: int) -> Tensor:
        """Return indices (int64, `count`) of the images that follow the first `nimg`: shuffled epochs end to end.

        n: images in the data set; fewer than `count` come several times.
        """
        pieces = []
        while count:
            epoch, start = divmod(nimg, n)
            piece = self._permutation(epoch, n)[start : start + count]
            pieces.append(piece)
            nimg, count = nimg + len(piece), count - len(piece)
        return torch.cat(pieces)

    def _permutation(self, epoch: int, n: int) -> Tensor:
        if self._epoch is None or self._epoch[:2] != (epoch, n):
            random = generator(self.seed, self.family, self.replica, "order", epoch)
            self._epoch = (epoch, n, torch.randperm(n, generator=random))
        return self._epoch[2]
