"""Samplers: anything that yields images. A recipe (a JSON tree) says how to build one; samplers nest.

Every random draw is indexed: image i of a sampler depends on (seed, i, its label) alone, so a longer draw begins with
the shorter one and the size of the batches changes nothing but the last bits of the arithmetic.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ChorusError
from pipeline.randomness import derive_seed, generator

BLOCK = 256  # random numbers are drawn for this many images at once, whatever the batch


def to_uint8(images: Tensor) -> Tensor:
    """Map floats in [-1, 1] to uint8 in [0, 255], rounding to the nearest."""
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def blocks(n: int) -> Iterator[tuple[int, int]]:
    """Yield (block index, images of that block that are wanted) until `n` are covered."""
    for start in range(0, n, BLOCK):
        yield start // BLOCK, min(BLOCK, n - start)


class Sampler(ABC):
    """A source of images of one shape. `classes`: how many classes it can be asked for, 0 where for none."""

    classes: int = 0

    @abstractmethod
    def batches(self, n: int, seed: int, labels: Tensor | None = None) -> Iterator[Tensor]:
        """Yield float B×C×H×W in [-1, 1], `BLOCK` images at a time and `n` in all, on the CPU or the sampler's device.

        labels: n int64 in [0, classes); None: each image is of the class that the sampler draws, if it knows classes.
        """

    @property
    @abstractmethod
    def cost(self) -> float:
        """Network passes that one delivered image costs, in units of one generator pass."""

    def sample(self, n: int, *, seed: int, labels: Tensor | None = None) -> Iterator[Tensor]:
        """Yield uint8 B×C×H×W batches, `n` images in all; the same seed gives the same images.

        labels: n int64 in [-1, classes), where -1 (and None) is any class: it is drawn with its share of the training
        images. Raises `ChorusError` for other labels.
        """
        asked = torch.zeros(n, dtype=torch.bool) if labels is None else labels >= 0
        if labels is not None:
            self._check(labels)
        if labels is None or not asked.any():
            images = self.batches(n, seed)
        elif asked.all():
            images = self.batches(n, seed, labels)
        else:
            # An image must not depend on the other rows' labels: both kinds are drawn for all rows.
            both = zip(
                self.batches(n, seed), self.batches(n, seed, labels.clamp(min=0)), asked.split(BLOCK), strict=True
            )
            images = (torch.where(rows.to(any_.device)[:, None, None, None], one, any_) for any_, one, rows in both)
        for batch in images:
            yield to_uint8(batch).cpu()

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


def latents(n: int, length: int, seed: int) -> Iterator[Tensor]:
    """Yield standard normal B×`length` blocks, `n` rows in all; row i depends on (seed, i) and `length` alone."""
    for block, wanted in blocks(n):
        yield torch.randn(BLOCK, length, generator=generator(seed, "latent", block))[:wanted]


def drawn_classes(n: int, shares: Sequence[float], seed: int) -> Iterator[Tensor | None]:
    """Yield the classes (B int64, `n` in all) of each block, drawn with these shares; Nones where there are none."""
    for block, wanted in blocks(n):
        if not shares:
            yield None
            continue
        random = generator(seed, "label", block)
        yield torch.multinomial(torch.tensor(shares), BLOCK, replacement=True, generator=random)[:wanted]


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
        """Map B×latent, and B labels where the generator is conditional, to B×C×H×W in [-1, 1]."""
        z = z.to(self.device)
        return self.network(z) if y is None or not self.classes else self.network(z, y.to(self.device))

    def batches(self, n: int, seed: int, labels: Tensor | None = None) -> Iterator[Tensor]:
        classes = drawn_classes(n, self.shares, seed) if labels is None else labels.split(BLOCK)
        for z, y in zip(latents(n, self.latent, seed), classes, strict=True):
            yield self.images(z, y)


class MixtureSampler(Sampler):
    """Each image comes from one part, drawn with the parts' weights; one of an asked class from those that know it."""

    def __init__(self, parts: Sequence[Sampler], weights: Sequence[float]) -> None:
        self.parts = list(parts)
        self.weights = torch.tensor(weights, dtype=torch.float64)
        self.able = self.weights * torch.tensor([part.classes > 0 for part in self.parts])
        # A part without weight never serves.
        self.classes = max(part.classes if weight else 0 for part, weight in zip(parts, weights, strict=True))

    @property
    def cost(self) -> float:
        return float(sum(w * part.cost for w, part in zip(self.weights.tolist(), self.parts, strict=True)))

    def batches(self, n: int, seed: int, labels: Tensor | None = None) -> Iterator[Tensor]:
        weights, purpose = (self.weights, "part") if labels is None else (self.able, "part of a class")
        choices = [
            torch.multinomial(weights, BLOCK, replacement=True, generator=generator(seed, purpose, block))[:wanted]
            for block, wanted in blocks(n)
        ]
        choice_of = torch.cat([torch.zeros(0, dtype=torch.int64), *choices])
        streams = []
        for i, part in enumerate(self.parts):
            chosen = choice_of == i
            wanted_labels = None if labels is None else labels[chosen]
            streams.append(_Reader(part.batches(int(chosen.sum()), derive_seed(seed, purpose, i), wanted_labels)))
        for choice in choices:
            pieces = [(choice == i).nonzero().flatten() for i in range(len(self.parts))]
            images = torch.cat([streams[i].take(len(p)) for i, p in enumerate(pieces) if len(p)])
            order = torch.cat(pieces).argsort().to(images.device)
            yield images[order]


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

    def batches(self, n: int, seed: int, labels: Tensor | None = None) -> Iterator[Tensor]:
        classes = drawn_classes(n, self.shares, seed) if labels is None else labels.split(BLOCK)
        for z, y in zip(latents(n, max(part.latent for part in self.parts), seed), classes, strict=True):
            pairs = zip(self.weights, self.parts, strict=True)
            yield torch.stack([w * part.images(z[:, : part.latent], y) for w, part in pairs]).sum(0)


class VoteSampler(Sampler):
    """Of `draws` images of `source`, the one that the critics rank highest on average.

    Ranks, not outputs: those of critics trained with different losses are on different scales. A critic that knows
    classes judges images of an asked class as such, and others whatever their class.
    """

    def __init__(self, source: Sampler, critics: Sequence[nn.Module], draws: int) -> None:
        self.source, self.critics, self.draws = source, list(critics), draws
        self.classes = source.classes

    @property
    def cost(self) -> float:
        # A critic's pass is counted as a generator's: the two mirror each other in every architecture here.
        passes = sum(float(getattr(critic, "passes", 1.0)) for critic in self.critics)
        return self.draws * (self.source.cost + passes)

    @torch.inference_mode()
    def batches(self, n: int, seed: int, labels: Tensor | None = None) -> Iterator[Tensor]:
        repeated = None if labels is None else labels.repeat_interleave(self.draws)
        reader = _Reader(self.source.batches(n * self.draws, seed, repeated))
        for block, wanted in blocks(n):
            images = reader.take(wanted * self.draws)
            y = None if repeated is None else repeated[block * BLOCK * self.draws :][: len(images)].to(images.device)
            outputs = torch.stack([critic(images, y).float().view(wanted, self.draws) for critic in self.critics])
            best = outputs.argsort(2).argsort(2).float().mean(0).argmax(1)
            yield images[torch.arange(wanted, device=images.device) * self.draws + best]


class _Reader:
    """Takes any number of images at a time from a stream of batches."""

    def __init__(self, stream: Iterator[Tensor]) -> None:
        self.stream, self.rest = stream, []  # type: Iterator[Tensor], list[Tensor]

    def take(self, count: int) -> Tensor:
        while sum(map(len, self.rest)) < count:
            self.rest.append(next(self.stream))
        images = torch.cat(self.rest)
        self.rest = [images[count:]]
        return images[:count]


def build_sampler(
    recipe: dict[str, Any],
    generator_of: Callable[[str], nn.Module],
    discriminator_of: Callable[[str], nn.Module],
    device: torch.device | str = "cpu",
) -> Sampler:
    """Build the sampler that a recipe describes.

    recipe: `{"kind": "candidate", "id": ID}`, `{"kind": "mixture" | "average", "weights": [...], "parts": [...]}` or
    `{"kind": "vote", "source": {...}, "critics": [ID, ...], "draws": K}`. generator_of, discriminator_of: load a
    candidate's network by id. Raises `ChorusError` for an unknown kind.
    """

    def build(node: dict[str, Any]) -> Sampler:
        return build_sampler(node, generator_of, discriminator_of, device)

    match node := recipe:
        case {"kind": "candidate", "id": name}:
            return CandidateSampler(generator_of(name), device)
        case {"kind": "mixture"}:
            return MixtureSampler([build(part) for part in node["parts"]], node["weights"])
        case {"kind": "average"}:
            parts = [CandidateSampler(generator_of(part["id"]), device) for part in node["parts"]]
            return AverageSampler(parts, node["weights"])
        case {"kind": "vote"}:
            critics = [discriminator_of(name).to(device) for name in node["critics"]]
            return VoteSampler(build(node["source"]), critics, node["draws"])
    raise ChorusError(f"unknown sampler kind {recipe.get('kind')!r} in the recipe: this code is older than the model")


def networks_of(recipe: dict[str, Any]) -> dict[str, set[str]]:
    """Return what a recipe needs: by candidate id, `generator`, `discriminator` or both."""
    needed: dict[str, set[str]] = {}
    if recipe["kind"] == "candidate":
        needed[recipe["id"]] = {"generator"}
    for name in recipe.get("critics", []):
        needed.setdefault(name, set()).add("discriminator")
    for inner in [*recipe.get("parts", []), *([recipe["source"]] if "source" in recipe else [])]:
        for name, networks in networks_of(inner).items():
            needed.setdefault(name, set()).update(networks)
    return needed
