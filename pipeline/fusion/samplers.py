"""Samplers: anything that yields images. A recipe (a JSON tree) says how to build one; samplers nest.

Every random draw is indexed: image i of a sampler depends on (seed, i, its label) alone. So a longer draw begins with
the shorter one, any rows can be drawn without the others, and the size of the batches changes nothing but the last bits
of the arithmetic.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ChorusError
from pipeline.layers.operations import operations
from pipeline.randomness import derive_seed, generator

BLOCK = 256  # random numbers are drawn for this many images at once, whatever the batch
AT_ONCE = 4 * BLOCK  # images of a batch that `Sampler.sample` yields: the parts of a mixture share it


def to_uint8(images: Tensor) -> Tensor:
    """Map floats in [-1, 1] to uint8 in [0, 255], rounding to the nearest."""
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


class Sampler(ABC):
    """A source of images of one shape.

    `classes`: how many classes it can be asked for, 0 where for none. `lacking`: those of them that it knows no way to
    draw, and raises `ChorusError` for.
    """

    classes: int = 0
    lacking: tuple[int, ...] = ()

    @abstractmethod
    def at(self, rows: Tensor, seed: int, labels: Tensor | None = None) -> Tensor:
        """Return images of the endless stream of `seed` by their numbers: float B×C×H×W in [-1, 1], on any device.

        rows: B int64, ascending, B ≥ 1. labels: B int64 in [0, classes); None: each image is of the class that the
        sampler draws, if it knows classes.
        """

    @property
    @abstractmethod
    def cost(self) -> float:
        """What one delivered image costs in passes of its generator; other networks count by their operations."""

    def sample(self, n: int, *, seed: int, labels: Tensor | None = None, first: int = 0) -> Iterator[Tensor]:
        """Yield uint8 B×C×H×W batches, `n` images in all; the same seed gives the same images.

        labels: n int64 in [-1, classes), where -1 (and None) is any class: it is drawn with its share of the training
        images. first: number of the first image in the seed's endless stream. Raises `ChorusError` for other labels.
        """
        if labels is not None:
            self._check(labels)
        for wanted in torch.arange(n).split(AT_ONCE) if n else ():
            rows = first + wanted
            if labels is None:
                yield to_uint8(self.at(rows, seed)).cpu()
                continue
            classes = labels[wanted]
            asked = classes >= 0
            pieces = [rows[~asked], rows[asked]]
            drawn = [(pieces[0], None), (pieces[1], classes[asked])]
            images = torch.cat([to_uint8(self.at(some, seed, y)).cpu() for some, y in drawn if len(some)])
            yield images[torch.cat(pieces).argsort()]

    def _check(self, labels: Tensor) -> None:
        """Raise `ChorusError` for a label that does not exist."""
        wrong = labels[(labels < -1) | (labels >= self.classes)]
        if not len(wrong):
            return
        known = f"this model knows the classes 0 to {self.classes - 1}, and -1 for any"
        if not self.classes:
            known = "this model draws images of any class, as its members are unconditional; use label -1"
        raise ChorusError(f"label {int(wrong[0])} does not exist: {known}")


def draw(sampler: Sampler, n: int, *, seed: int, labels: Tensor | None = None) -> Tensor:
    """Return `n` images as one uint8 tensor n×C×H×W; labels as of `Sampler.sample`."""
    return torch.cat(list(sampler.sample(n, seed=seed, labels=labels)))


def in_blocks(network: Callable[..., Tensor], rows: Tensor, *others: Tensor | None) -> Tensor:
    """Return what a network makes of B rows, `BLOCK` at a time: a sampler may look at many more than it delivers.

    others: further arguments, B rows each, or None.
    """
    pieces = [[None] * -(-len(rows) // BLOCK) if other is None else other.split(BLOCK) for other in others]
    return torch.cat([network(*block) for block in zip(rows.split(BLOCK), *pieces, strict=True)])


@torch.inference_mode()
def passes_of(network: Callable[[Tensor], Any], source: Sampler) -> float:
    """Return what a network's pass on an image costs, by operations, in units of a pass of the generator it is from."""
    rows = torch.arange(BLOCK)
    images = source.at(rows, 0)
    return source.cost * operations(lambda: network(images)) / operations(lambda: source.at(rows, 0))


def indexed(rows: Tensor, draw_block: Callable[[int], Tensor]) -> Tensor:
    """Return what is drawn for each row: `draw_block` gives `BLOCK` rows for a block's number, whichever are wanted.

    rows: B int64, ascending. What it draws has to depend on that number alone, so that row i depends on i alone.
    """
    blocks = rows // BLOCK
    return torch.cat([draw_block(block)[rows[blocks == block] % BLOCK] for block in blocks.unique().tolist()])


def latents(rows: Tensor, length: int, seed: int) -> Tensor:
    """Return standard normal B×`length`; row i depends on (seed, i) and `length` alone."""
    return indexed(rows, lambda block: torch.randn(BLOCK, length, generator=generator(seed, "latent", block)))


def uniform(rows: Tensor, seed: int, purpose: str) -> Tensor:
    """Return B numbers uniform on [0, 1), float64; row i's depends on (seed, i) and `purpose` alone."""

    def draw_block(block: int) -> Tensor:
        return torch.rand(BLOCK, generator=generator(seed, purpose, block), dtype=torch.float64)

    return indexed(rows, draw_block)


def choices(rows: Tensor, weights: Sequence[float] | Tensor, seed: int, purpose: str) -> Tensor:
    """Return B int64 indices drawn with these weights; row i's depends on (seed, i), `purpose` and them alone."""
    given = torch.as_tensor(weights)

    def draw_block(block: int) -> Tensor:
        return torch.multinomial(given, BLOCK, replacement=True, generator=generator(seed, purpose, block))

    return indexed(rows, draw_block)


def classes_of(rows: Tensor, shares: Sequence[float], seed: int) -> Tensor | None:
    """Return classes drawn with these shares (B int64), None where there are none."""
    return choices(rows, shares, seed, "label") if shares else None


class CandidateSampler(Sampler):
    """One generator.

    The network says by its attributes how long a latent it takes (`latent`), how often each class occurs
    (`class_shares`, absent or empty where it is unconditional) and how many passes an image takes (`passes`, or one).
    """

    def __init__(self, network: nn.Module, device: torch.device | str = "cpu") -> None:
        self.network = network.to(device).eval()
        self.latent = int(network.latent)  # type: ignore[arg-type]
        self.shares = tuple(getattr(network, "class_shares", ()))
        self.classes = len(self.shares)
        self.device = torch.device(device)

    @property
    def cost(self) -> float:
        return float(getattr(self.network, "passes", 1.0))

    @torch.inference_mode()
    def images(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Map B×latent, and B labels where the generator is conditional, to B×C×H×W in [-1, 1].

        A pass takes no more than a block, however many rows a sampler around this one asks for. Raises `ChorusError`
        where the generator puts out what is no number: as bytes that would be black pixels, and nobody would know.
        """
        given = [z] if y is None or not self.classes else [z, y]
        batches = zip(*(values.to(self.device).split(BLOCK) for values in given), strict=True)
        images = torch.cat([self.network(*batch) for batch in batches])
        if not bool(images.isfinite().all()):
            raise ChorusError("the generator puts out NaN or infinity: its weights are damaged")
        return images

    def at(self, rows: Tensor, seed: int, labels: Tensor | None = None) -> Tensor:
        classes = classes_of(rows, self.shares, seed) if labels is None else labels
        return self.images(latents(rows, self.latent, seed), classes)


class MixtureSampler(Sampler):
    """Each image comes from one part, drawn with the parts' weights; one of an asked class from those that know it."""

    def __init__(self, parts: Sequence[Sampler], weights: Sequence[float]) -> None:
        self.parts = list(parts)
        self.weights = torch.tensor(weights, dtype=torch.float64)
        self.able = self.weights * torch.tensor([part.classes > 0 for part in self.parts])
        # A part without weight never serves.
        self.classes = max(part.classes if weight else 0 for part, weight in zip(parts, weights, strict=True))
        serving = [part.lacking for part, weight in zip(parts, weights, strict=True) if weight]
        self.lacking = tuple(sorted({label for lacking in serving for label in lacking}))

    @property
    def cost(self) -> float:
        return float(sum(w * part.cost for w, part in zip(self.weights.tolist(), self.parts, strict=True)))

    def at(self, rows: Tensor, seed: int, labels: Tensor | None = None) -> Tensor:
        weights, purpose = (self.weights, "part") if labels is None else (self.able, "part of a class")
        choice = choices(rows, weights, seed, purpose)
        places = [(choice == i).nonzero().flatten() for i in range(len(self.parts))]
        images = torch.cat(
            [
                # Row i is image i of the chosen part's own stream.
                part.at(rows[place], derive_seed(seed, purpose, i), None if labels is None else labels[place])
                for i, (part, place) in enumerate(zip(self.parts, places, strict=True))
                if len(place)
            ]
        )
        return images[torch.cat(places).argsort().to(images.device)]


class AverageSampler(Sampler):
    """The weighted mean of the parts' pixels for shared latents, and a shared class where all parts know classes.

    Parts whose latents are shorter take the beginning of the shared one. Kept as the literal form of model averaging:
    for generators that were trained apart it blurs, and is measured to lose.
    """

    def __init__(self, parts: Sequence[CandidateSampler], weights: Sequence[float]) -> None:
        self.parts = list(parts)
        self.weights = list(weights)
        self.classes = min(part.classes for part in parts)
        self.shares = max((part.shares for part in parts), key=len)

    @property
    def cost(self) -> float:
        return float(sum(part.cost for part in self.parts))

    def at(self, rows: Tensor, seed: int, labels: Tensor | None = None) -> Tensor:
        z = latents(rows, max(part.latent for part in self.parts), seed)
        y = classes_of(rows, self.shares, seed) if labels is None else labels
        pairs = zip(self.weights, self.parts, strict=True)
        return torch.stack([w * part.images(z[:, : part.latent], y) for w, part in pairs]).sum(0)


class VoteSampler(Sampler):
    """Of `draws` images of `source`, the one that the critics rank highest on average.

    Ranks, not outputs: those of critics trained with different losses are on different scales. A critic that knows
    classes judges images of an asked class as such, and others whatever their class.
    """

    def __init__(self, source: Sampler, critics: Sequence[nn.Module], draws: int) -> None:
        self.source, self.critics, self.draws = source, list(critics), draws
        self.classes, self.lacking = source.classes, source.lacking

    @property
    def cost(self) -> float:
        return self.draws * (self.source.cost + self.judging_cost)

    @cached_property
    def judging_cost(self) -> float:
        """Operations of all critics' passes over those of a generator's pass."""
        return passes_of(lambda images: [critic(images) for critic in self.critics], self.source)

    @torch.inference_mode()
    def at(self, rows: Tensor, seed: int, labels: Tensor | None = None) -> Tensor:
        drawn = (rows[:, None] * self.draws + torch.arange(self.draws)).flatten()
        repeated = None if labels is None else labels.repeat_interleave(self.draws)
        images = self.source.at(drawn, seed, repeated)
        y = None if repeated is None else repeated.to(images.device)
        outputs = torch.stack([in_blocks(critic, images, y).float().view(len(rows), -1) for critic in self.critics])
        outputs = outputs.nan_to_num(nan=-torch.inf)  # a sort would put it above everything
        best = outputs.argsort(2).argsort(2).float().mean(0).argmax(1)
        return images[torch.arange(len(rows), device=images.device) * self.draws + best]
