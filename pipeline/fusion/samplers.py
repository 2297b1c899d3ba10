"""Samplers: anything that yields images. A recipe (a JSON tree) says how to build one; samplers nest.

Every random draw is indexed: image i of a sampler depends on (seed, i) alone, so a longer draw begins with the shorter
one and the size of the batches changes nothing but the last bits of the arithmetic.
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
    """A source of images of one shape."""

    @abstractmethod
    def batches(self, n: int, seed: int) -> Iterator[Tensor]:
        """Yield float B×C×H×W batches in [-1, 1], in all `n` images, on the CPU or the sampler's device."""

    @property
    @abstractmethod
    def cost(self) -> float:
        """Network passes that one delivered image costs, in units of one generator pass."""

    def sample(self, n: int, *, seed: int, labels: Tensor | None = None) -> Iterator[Tensor]:
        """Yield uint8 B×C×H×W batches, `n` images in all; the same seed gives the same images.

        labels: n int64, -1 for any class; raises `ChorusError` for another label, as members are unconditional.
        """
        if labels is not None and bool((labels >= 0).any()):
            raise ChorusError("this model draws images of any class: its members are unconditional, so use label -1")
        for batch in self.batches(n, seed):
            yield to_uint8(batch).cpu()


def draw(sampler: Sampler, n: int, *, seed: int) -> Tensor:
    """Return `n` images as one uint8 tensor n×C×H×W."""
    return torch.cat(list(sampler.sample(n, seed=seed)))


def latents(n: int, length: int, seed: int) -> Iterator[Tensor]:
    """Yield standard normal B×`length` blocks, `n` rows in all; row i depends on (seed, i) and `length` alone."""
    for block, wanted in blocks(n):
        yield torch.randn(BLOCK, length, generator=generator(seed, "latent", block))[:wanted]


class CandidateSampler(Sampler):
    """One generator. `network.latent` is the length of the latent it takes."""

    cost = 1.0

    def __init__(self, network: nn.Module, device: torch.device | str = "cpu") -> None:
        self.network = network.to(device).eval()
        self.latent = int(network.latent)  # type: ignore[arg-type]
        self.device = torch.device(device)

    @torch.inference_mode()
    def images(self, z: Tensor) -> Tensor:
        """Map B×latent to B×C×H×W in [-1, 1]."""
        return self.network(z.to(self.device))

    def batches(self, n: int, seed: int) -> Iterator[Tensor]:
        for z in latents(n, self.latent, seed):
            yield self.images(z)


class MixtureSampler(Sampler):
    """Each image comes from one part, drawn with the parts' weights."""

    def __init__(self, parts: Sequence[Sampler], weights: Sequence[float]) -> None:
        self.parts = list(parts)
        self.weights = torch.tensor(weights, dtype=torch.float64)

    @property
    def cost(self) -> float:
        return float(sum(w * part.cost for w, part in zip(self.weights.tolist(), self.parts, strict=True)))

    def batches(self, n: int, seed: int) -> Iterator[Tensor]:
        choices = [
            torch.multinomial(self.weights, BLOCK, replacement=True, generator=generator(seed, "part", block))[:wanted]
            for block, wanted in blocks(n)
        ]
        none = torch.zeros(0, dtype=torch.int64)
        counts = torch.bincount(torch.cat([none, *choices]), minlength=len(self.parts)).tolist()
        streams = [
            _Reader(part.batches(count, derive_seed(seed, "part", i)))
            for i, (part, count) in enumerate(zip(self.parts, counts, strict=True))
        ]
        for choice in choices:
            pieces = [(choice == i).nonzero().flatten() for i in range(len(self.parts))]
            images = torch.cat([streams[i].take(len(p)) for i, p in enumerate(pieces) if len(p)])
            order = torch.cat(pieces).argsort().to(images.device)
            yield images[order]


class AverageSampler(Sampler):
    """The weighted mean of the parts' pixels for shared latents.

    Parts whose latents are shorter take the beginning of the shared one. Kept as the literal form of model averaging:
    for generators that were trained apart it blurs, and is measured to lose.
    """

    def __init__(self, parts: Sequence[CandidateSampler], weights: Sequence[float]) -> None:
        self.parts = list(parts)
        self.weights = list(weights)

    @property
    def cost(self) -> float:
        return float(len(self.parts))

    def batches(self, n: int, seed: int) -> Iterator[Tensor]:
        for z in latents(n, max(part.latent for part in self.parts), seed):
            pairs = zip(self.weights, self.parts, strict=True)
            yield torch.stack([w * part.images(z[:, : part.latent]) for w, part in pairs]).sum(0)


class VoteSampler(Sampler):
    """Of `draws` images of `source`, the one that the critics rank highest on average.

    Ranks, not outputs: those of critics trained with different losses are on different scales.
    """

    def __init__(self, source: Sampler, critics: Sequence[nn.Module], draws: int) -> None:
        self.source, self.critics, self.draws = source, list(critics), draws

    @property
    def cost(self) -> float:
        # A critic's pass is counted as a generator's: the two mirror each other in every architecture here.
        return self.draws * (self.source.cost + len(self.critics))

    @torch.inference_mode()
    def batches(self, n: int, seed: int) -> Iterator[Tensor]:
        reader = _Reader(self.source.batches(n * self.draws, seed))
        for _, wanted in blocks(n):
            images = reader.take(wanted * self.draws)
            outputs = torch.stack([critic(images).float().view(wanted, self.draws) for critic in self.critics])
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
