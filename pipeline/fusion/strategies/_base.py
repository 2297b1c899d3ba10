"""What a strategy is given, what it returns, and the registry."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.errors import ChorusError
from pipeline.evaluation.frechet import Matrix, Views, mean_distance, moments
from pipeline.evaluation.networks import NetworkConfig, Standardised
from pipeline.evaluation.ruler import Real, Ruler
from pipeline.params import Fusion as Settings


@dataclass(frozen=True)
class Candidate:
    """A snapshot that may enter the fusion.

    id: FAMILY/MEMBER/SNAPSHOT. views: its samples as the rulers that decide see them. critic: hash of its
    discriminator, which members that train together share; None where it has none. read: returns the features of its
    samples, N×d for each ruler, relative as those of `Real`. classes: how many it can be asked for, 0 where for none.
    asked: the classes that its samples were asked for, N int64.
    """

    id: str
    views: Views
    critic: str | None
    read: Callable[[], tuple[Matrix, ...]]
    classes: int = 0
    asked: NDArray[np.int64] | None = None

    @classmethod
    def of(
        cls,
        name: str,
        critic: str | None,
        read: Callable[[], tuple[Matrix, ...]],
        classes: int = 0,
        asked: NDArray[np.int64] | None = None,
    ) -> "Candidate":
        """Read the features for their moments; raises `ChorusError` with the candidate's name for unusable ones."""
        try:
            return cls(name, tuple(map(moments, read())), critic, read, classes, asked)
        except ChorusError as error:
            remedy = "leave its family out, or remove its evaluation and run dvc repro"
            raise ChorusError(f"{name}: {error}; {remedy}") from None

    @property
    def member(self) -> str:
        return self.id.rpartition("/")[0]

    @property
    def nimg(self) -> int:
        """How many images it was trained on: its snapshot's name."""
        return int(self.id.rpartition("/")[2])


Made = TypeVar("Made")
Images = tuple[Tensor, Tensor | None]  # uint8 N×C×H×W and their classes, N int64, where there are any


@dataclass(frozen=True)
class Material:
    """What strategies need that look at images or train on them, read when it is asked for.

    generator, discriminator: return a candidate's network by id, in evaluation mode. configuration: returns what a
    candidate's networks are built from, as JSON. train: returns the images that members were trained on. fit: returns
    the real images of the part of `val` that there is to fit on, in the order of `Problem.real`. features: returns what
    the rulers that decide see of uint8 images, as `Candidate.read` does. profiles: returns the averages of weights
    stored with a candidate, by relative width and name of the parameter. extractor: returns what one of our own
    extractors is built from and its network, by name. judges: names of the extractors that judge, on whose features
    nothing may be fitted. device, autocast: to compute with. say: tells of progress.
    """

    generator: Callable[[str], nn.Module]
    discriminator: Callable[[str], nn.Module]
    configuration: Callable[[str], dict[str, Any]]
    train: Callable[[], Images]
    fit: Callable[[], Images]
    features: Callable[[Tensor], tuple[Matrix, ...]]
    profiles: Callable[[str], dict[float, dict[str, Tensor]]]
    extractor: Callable[[str], tuple[NetworkConfig, Standardised]]
    judges: tuple[str, ...]
    device: torch.device
    autocast: torch.dtype | None
    say: Callable[[str], None]


@dataclass(frozen=True)
class Problem:
    """What strategies are fitted on: the pool, and the real images of the part of `val` that is there to fit.

    settings: the section `fusion` of params.yaml. seed: of what a strategy draws. distances: that of each candidate
    alone, by id. material: images and networks, None where there are features alone. rulers: those that decide, through
    which all features are seen. held_out: real images that nothing may be fitted on; the report tells how near mixtures
    come to them.
    """

    pool: tuple[Candidate, ...]
    real: Real
    settings: Settings
    seed: int
    distances: dict[str, float]
    material: Material | None = None
    rulers: tuple[Ruler, ...] = ()
    held_out: Real | None = None
    _made: dict[str, Any] = field(init=False, repr=False, compare=False, default_factory=dict)

    @classmethod
    def of(
        cls,
        pool: tuple[Candidate, ...],
        real: Real,
        settings: Settings,
        seed: int = 0,
        material: Material | None = None,
        rulers: Sequence[Ruler] = (),
        held_out: Real | None = None,
    ) -> "Problem":
        distances = {c.id: mean_distance(c.views, real.views) for c in pool}
        return cls(pool, real, settings, seed, distances, material, tuple(rulers), held_out)

    def once(self, name: str, make: "Callable[[Problem], Made]") -> Made:
        """Return what `make` makes of this problem, made when it is first asked for: several strategies start from it.

        It has to be the same whenever it is made, and nobody may change it.
        """
        if name not in self._made:
            self._made[name] = make(self)
        made: Made = self._made[name]
        return made

    def ranked(self) -> list[Candidate]:
        """Return the pool, nearest to the real images first; equal distances in the order of ids."""
        return sorted(self.pool, key=lambda c: (self.distances[c.id], c.id))

    def best_of_each_member(self) -> list[Candidate]:
        """Return each member's nearest snapshot, in the order of ids."""
        best: dict[str, Candidate] = {}
        for candidate in self.ranked():
            best.setdefault(candidate.member, candidate)
        return sorted(best.values(), key=lambda c: c.id)

    def critics(self) -> list[str]:
        """Return the ids of the candidates whose discriminators judge together: of each member's nearest snapshot.

        One that several members trained against counts once. Raises `NotApplicableError` where there is none.
        """
        found: dict[str, str] = {}
        for candidate in self.best_of_each_member():
            if candidate.critic:
                found.setdefault(candidate.critic, candidate.id)
        if not found:
            raise NotApplicableError("no member has a discriminator")
        return list(found.values())


@dataclass(frozen=True)
class Companion:
    """A network that a strategy made: its kind and what else builds it again (JSON), and itself."""

    config: dict[str, Any]
    network: nn.Module


@dataclass(frozen=True)
class Snapshot:
    """A generator that a strategy made of a candidate's. Its architecture and its discriminator are that one's."""

    source: str
    generator: nn.Module


@dataclass(frozen=True)
class Fusion:
    """A strategy's result: the recipe of a sampler, and the evidence for it (numbers that the report shows).

    companions: networks of the strategy's own that the recipe names, by their ids FOLDER/NAME. snapshots: generators
    that it made of candidates, which the recipe names as such, by ids STRATEGY/A/B.
    """

    recipe: dict[str, Any]
    evidence: dict[str, Any] = field(default_factory=dict)
    companions: dict[str, Companion] = field(default_factory=dict)
    snapshots: dict[str, Snapshot] = field(default_factory=dict)


class NotApplicableError(Exception):
    """The pool does not allow this strategy; the message says why and stands in the strategy's row."""


Strategy = Callable[[Problem], Fusion]
_REGISTRY: dict[str, Strategy] = {}


def register(name: str) -> Callable[[Strategy], Strategy]:
    """Register a function as the strategy `name`; its file in this package must bear that name."""

    def add(function: Strategy) -> Strategy:
        _REGISTRY[name] = function
        return function

    return add


def strategy(name: str) -> Strategy:
    """Return a registered strategy, importing its file when it is first asked for."""
    if name not in _REGISTRY:
        importlib.import_module(f"pipeline.fusion.strategies.{name}")
    return _REGISTRY[name]


def combine(kind: str, weights: dict[str, float]) -> dict[str, Any]:
    """Return the recipe of a `mixture` or `average` of candidates; weights (by id) of zero are left out."""
    kept = {name: weight for name, weight in weights.items() if weight > 0}
    parts = [{"kind": "candidate", "id": name} for name in kept]
    return {"kind": kind, "weights": list(kept.values()), "parts": parts}


def uniform_weights(candidates: list[Candidate]) -> dict[str, float]:
    """Return equal weights by id."""
    return {candidate.id: 1 / len(candidates) for candidate in candidates}
