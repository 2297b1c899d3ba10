"""All other sections of `params.yaml`, and the whole of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

import pipeline.fusion.strategies
from pipeline.params.family import Family
from pipeline.params.fields import (
    AUTO,
    NAME,
    Count,
    Fraction,
    NotNegative,
    Positive,
    Samples,
    Section,
    Several,
    registered,
)
from pipeline.params.flow import Flow
from pipeline.params.gate import Gate
from pipeline.params.racing import Budget, Racing, complaint
from pipeline.params.select import Select
from pipeline.params.student import Choose, Student

OWN_EXTRACTORS = ("classifier", "classifier-b", "selfsup", "selfsup-b", "pixels")
PRETRAINED = (
    "inception-v3-compat",
    "vgg16",
    "dinov2-vit-s-14",
    "dinov2-vit-b-14",
    "dinov2-vit-l-14",
    "dinov2-vit-g-14",
    "clip-rn50",
    "clip-rn101",
    "clip-rn50x4",
    "clip-rn50x16",
    "clip-rn50x64",
    "clip-vit-b-32",
    "clip-vit-b-16",
    "clip-vit-l-14",
    "clip-vit-l-14-336px",
)


class Splits(Section):
    """Shares of the four splits; they add up to 1."""

    train: Positive = 0.5
    val: Positive = 0.2
    gate: Positive = 0.15
    test: Positive = 0.15

    @model_validator(mode="after")
    def _add_up(self) -> "Splits":
        total = self.train + self.val + self.gate + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the four shares add up to {total:g}, not to 1")
        return self


class Data(Section):
    source: Literal["digits", "mnist", "fashion-mnist", "cifar10", "folder"]
    root: Path | None = None
    watch: str
    size: Literal[8, 16, 28, 32, 64, 128]
    channels: Literal[1, 3] = 1
    splits: Splits = Splits()
    max_bad_fraction: Fraction = 0.05
    max_pixels: Count = 64_000_000

    @model_validator(mode="after")
    def _folder_has_root(self) -> "Data":
        if self.source == "folder" and self.root is None:
            raise ValueError("source 'folder' needs 'root': the folder of your images")
        if self.watch.startswith("~"):
            raise ValueError("'watch' is read by DVC, which knows no '~': write the path out")
        return self


class Compute(Section):
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: Count = 1


class Training(Section):
    """replicas: whether a family's train as one (`fused`) or one after another; `auto`: as measured to be faster."""

    replicas: Literal["auto", "fused", "sequential"] = "auto"


def conflict(selection: Sequence[str], judges: Sequence[str]) -> str | None:
    """Return what is wrong with these extractors, None where the judges are others than those that decide."""
    if len({*selection, *judges}) < len(selection) + len(judges):
        return (
            f"an extractor stands twice (selection: {', '.join(selection)}; judges: {', '.join(judges)}); "
            "a judge must take no part in the selection"
        )
    return None if judges else "no judge is left: name one in judges that is not in selection"


class Reference(Section):
    """Extractors: which decide together (`selection`), which judge, and how ours are trained."""

    selection: Literal["auto"] | Annotated[list[str], Field(min_length=1)] = "auto"
    judges: Literal["auto"] | Annotated[list[str], Field(min_length=1)] = "auto"
    weights: dict[str, Path] = Field(default={})
    kimg: Positive = 100

    @model_validator(mode="after")
    def _known_and_apart(self) -> "Reference":
        allowed = OWN_EXTRACTORS + PRETRAINED
        for name in [name for names in (self.selection, self.judges) if names != "auto" for name in names]:
            if name not in allowed:
                raise ValueError(f"unknown extractor '{name}'; allowed: {', '.join(allowed)}")
        for name in self.weights:
            if name not in PRETRAINED:
                raise ValueError(f"'{name}' in weights is no published extractor; allowed: {', '.join(PRETRAINED)}")
        complaints = [conflict(self.deciding(labelled), self.judging(labelled)) for labelled in (True, False)]
        if all(complaints):
            raise ValueError(complaints[0])
        return self

    def deciding(self, labelled: bool) -> tuple[str, ...]:
        """Names of the extractors that decide together; `labelled`: whether the data have classes.

        A label-free one is among them: classifiers overlook noise and other faults that change no class.
        """
        if self.selection == "auto":
            return ("classifier",) * labelled + ("selfsup",)
        return tuple(self.selection)

    def judging(self, labelled: bool) -> tuple[str, ...]:
        """Names of the extractors that only judge: of another kind, seed or training than those that decide."""
        if self.judges != "auto":
            return tuple(self.judges)
        wanted = ("classifier-b",) * labelled + ("selfsup", "selfsup-b", "pixels")
        return tuple(name for name in wanted if name not in self.deciding(labelled))[:2]


class Evaluation(Section):
    """How many images each candidate draws, and how many feature dimensions the rulers keep (`auto`: by counts)."""

    samples: Samples = 2000
    dims: Literal["auto", "all"] | Several = "auto"
    neighbours: Count = 3


class Fusion(Section):
    """strategy: which of `strategies` is shipped; `auto`: the one that val chooses."""

    strategies: list[str] = Field(default=list(registered(pipeline.fusion.strategies)), min_length=1)
    strategy: str = AUTO
    fit_fraction: Annotated[float, Field(gt=0, lt=1, strict=True)] = 0.5
    select: Select = Select()
    greedy_steps: Count = 50
    vote_draws: Several = 4
    soup_members: Count = 1
    moe_clusters: Count = 10
    min_acceptance: Annotated[float, Field(gt=0, le=1, strict=True)] = 0.25
    min_members: Count = 1
    stacking_kimg: NotNegative = 20
    refine_steps: Count = 5
    refine_step_size: Positive = 0.1

    @model_validator(mode="after")
    def _known(self) -> "Fusion":
        allowed = registered(pipeline.fusion.strategies)
        for name in self.strategies:
            if name not in allowed:
                raise ValueError(f"unknown strategy '{name}'; allowed: {', '.join(allowed)}")
        if len(set(self.strategies)) < len(self.strategies):
            raise ValueError("a strategy is named twice")
        if self.strategy not in (AUTO, *self.strategies):
            known = ", ".join([AUTO, *self.strategies])
            raise ValueError(f"strategy '{self.strategy}' is not in strategies; allowed: {known}")
        return self


class Judge(Section):
    samples: Samples = 2000


class Register(Section):
    model: Annotated[str, Field(pattern=NAME)] = "chorus"


class Params(Section):
    seed: Annotated[int, Field(ge=0, strict=True)] = 0
    data: Data
    compute: Compute = Compute()
    reference: Reference = Reference()
    budget: Budget | None = None
    racing: Racing = Racing()
    training: Training = Training()
    families: Annotated[dict[Annotated[str, Field(pattern=NAME)], Family], Field(min_length=1)]
    evaluation: Evaluation = Evaluation()
    fusion: Fusion = Field(default_factory=Fusion)
    students: dict[Annotated[str, Field(pattern=NAME)], Student] = Field(default={})
    choose: Choose = Choose()
    judge: Judge = Judge()
    gate: Gate = Gate()
    register_: Register = Field(default=Register(), alias="register")
    flow: Flow = Flow()

    @model_validator(mode="after")
    def _budget_fits_families(self) -> "Params":
        if message := complaint(self.budget, self.racing, self.families):
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _students_have_names_of_their_own(self) -> "Params":
        if both := sorted(set(self.students) & {*self.families, *registered(pipeline.fusion.strategies)}):
            raise ValueError(f"'{both[0]}' names a student and a family or strategy; give the student another name")
        return self
