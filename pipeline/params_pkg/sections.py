"""`params.yaml` as frozen models: the only reader of the file, and the only place that says what it may hold."""

import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

import pipeline.fusion.strategies
import pipeline.models
from pipeline.errors import ChorusError
from pipeline.fields import SECTION, Count, Decay, Fraction, NotNegative, Positive, Samples, Several
from pipeline.racing.settings import Budget, Racing, complaint

NAME = r"^[a-z0-9][a-z0-9_-]*$"
# What trains the architectures that are no plain GANs; said here, as asking their files would import torch.
OBJECTIVES = {"vae": "variational"}
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


class Section(BaseModel):
    model_config = SECTION


def registered(package: Any) -> tuple[str, ...]:
    """Names that a one-file-each registry holds, read from its file names so that nothing heavy is imported."""
    return tuple(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


# Keys of a family that only some objectives know.
_DISCRIMINATOR = (
    "lr_discriminator",
    "loss",
    "regularisers",
    "spectral_norm",
    "dropout",
    "label_smoothing",
    "augment",
    "discriminator_steps",
    "discriminators",
    "discriminator_weights",
)
OWNED = {"adversarial": _DISCRIMINATOR, "variational": ("kl_weight", "sample_noise")}


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


def conflict(selection: Sequence[str], judges: Sequence[str]) -> str | None:
    """Return what is wrong with these extractors, None where the judges are others than those that decide."""
    if len({*selection, *judges}) < len(selection) + len(judges):
        return (
            f"an extractor stands twice (selection: {', '.join(selection)}; judges: {', '.join(judges)}); "
            "a judge must take no part in the selection"
        )
    return None if judges else "no judge is left: name one in judges that is not in selection"


class Reference(Section):
    """Extractors: which decide (`selection`, the first one is the ruler), which judge, and how ours are trained."""

    selection: Literal["auto"] | Annotated[list[str], Field(min_length=1)] = "auto"
    judges: Literal["auto"] | Annotated[list[str], Field(min_length=1)] = "auto"
    weights: dict[str, Path] = {}
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
        """Names of the extractors that decide, the ruler first; `labelled`: whether the data have classes."""
        if self.selection == "auto":
            return ("classifier",) if labelled else ("selfsup",)
        return tuple(self.selection)

    def judging(self, labelled: bool) -> tuple[str, ...]:
        """Names of the extractors that only judge: of another kind, seed or training than those that decide."""
        if self.judges != "auto":
            return tuple(self.judges)
        wanted = ("classifier-b",) * labelled + ("selfsup", "selfsup-b", "pixels")
        return tuple(name for name in wanted if name not in self.deciding(labelled))[:2]


class Regularisers(Section):
    """Penalties on the discriminator by their strengths; `every`: taken at each such step, times as strong."""

    r1: Positive | None = None
    r2: Positive | None = None
    gradient_penalty: Positive | None = None
    weight_clip: Positive | None = None
    every: Count = 1


class Family(Section):
    """One recipe, trained `replicas` times. Budgets count training images seen, in thousands (`kimg`).

    kimg: of each replica; not read where `budget` shares out a total.
    """

    architecture: str
    replicas: Count = 1
    scheme: Literal["independent", "bagging", "boosting", "cascade", "joint"] = "independent"
    conditional: Annotated[bool, Field(strict=True)] = False
    kimg: NotNegative = 0
    batch: Several = 64
    snapshots: Count = 1
    latent: Count = 100
    width: Count = 64
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: Positive = 2e-4
    lr_discriminator: Positive | None = None
    betas: tuple[Decay, Decay] = (0.5, 0.999)
    momentum: Decay = 0.9
    ema_halflife_kimg: NotNegative = 10
    ema_rampup: Annotated[float, Field(gt=0, le=1, strict=True)] | None = 0.05
    loss: Literal["minimax", "nonsaturating", "lsgan", "hinge", "wasserstein", "relativistic"] | None = None
    regularisers: Regularisers = Regularisers()
    spectral_norm: Annotated[bool, Field(strict=True)] = False
    dropout: Decay | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5, strict=True)] = 0.0
    augment: list[Literal["color", "translation", "cutout"]] = []
    discriminator_steps: Count = 1
    discriminators: Count = 1
    discriminator_weights: Literal["mean", "softmax"] = "mean"
    kl_weight: NotNegative | None = None
    sample_noise: bool | None = None
    sampling_steps: Count | None = None

    @property
    def objective(self) -> str:
        """What trains the architecture: a name in `pipeline.training.objectives`."""
        return OBJECTIVES.get(self.architecture, "adversarial")

    @model_validator(mode="after")
    def _fits_architecture(self) -> "Family":
        allowed = registered(pipeline.models)
        if self.architecture not in allowed:
            raise ValueError(f"unknown architecture '{self.architecture}'; allowed: {', '.join(allowed)}")
        own = set(OWNED[self.objective])
        for key in sorted(self._set() - own):
            owners = [objective for objective, keys in OWNED.items() if key in keys]
            if owners:
                raise ValueError(
                    f"'{key}' is for {' and '.join(owners)} training, not for '{self.architecture}' "
                    f"({self.objective}), whose own keys are {', '.join(OWNED[self.objective])}"
                )
        return self

    def _set(self) -> set[str]:
        """Names of the keys whose values are not the defaults."""
        return {name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default}


class Evaluation(Section):
    """How many images each candidate draws, and how many feature dimensions the ruler keeps (`auto`: by counts)."""

    samples: Samples = 2000
    dims: Literal["auto", "all"] | Several = "auto"
    neighbours: Count = 3


class Fusion(Section):
    strategies: Annotated[list[str], Field(min_length=1)] = list(registered(pipeline.fusion.strategies))
    fit_fraction: Annotated[float, Field(gt=0, lt=1, strict=True)] = 0.5
    vote_draws: Several = 4

    @model_validator(mode="after")
    def _known(self) -> "Fusion":
        allowed = registered(pipeline.fusion.strategies)
        for name in self.strategies:
            if name not in allowed:
                raise ValueError(f"unknown strategy '{name}'; allowed: {', '.join(allowed)}")
        if len(set(self.strategies)) < len(self.strategies):
            raise ValueError("a strategy is named twice")
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
    families: Annotated[dict[Annotated[str, Field(pattern=NAME)], Family], Field(min_length=1)]
    evaluation: Evaluation = Evaluation()
    fusion: Fusion = Field(default_factory=Fusion)
    judge: Judge = Judge()
    register_: Register = Field(default=Register(), alias="register")

    @model_validator(mode="after")
    def _budget_fits_families(self) -> "Params":
        if message := complaint(self.budget, self.racing, self.families):
            raise ValueError(message)
        return self


def _explain(item: Any) -> str:
    """One pydantic error as `key = value: what is allowed`."""
    where = key_of(item["loc"])
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown key; allowed here: {', '.join(_allowed_keys(item['loc'][:-1]))}"
    if item["type"] == "missing":
        return f"{where}: missing"
    value = "" if isinstance(item["input"], dict | BaseModel) else f" = {item['input']!r}"
    return f"{where}{value}: {message}" if where else message


def key_of(location: tuple[Any, ...]) -> str:
    """Return a location as a key of the file: what pydantic adds to tell the members of a union apart is left out."""
    own = [str(part) for part in location if part != "[key]"]
    added = next((i for i, part in enumerate(own) if i and ("[" in part or part.startswith("constrained-"))), len(own))
    return ".".join(own[:added])


def _allowed_keys(location: tuple[Any, ...]) -> list[str]:
    """Keys of the section at `location`."""
    model: Any = Params
    for part in location:
        if part == "families":
            model = Family
        elif model is not Family or part in Family.model_fields:
            fields = {field.alias or name: field for name, field in model.model_fields.items()}
            model = fields[part].annotation
            model = next((kind for kind in get_args(model) if hasattr(kind, "model_fields")), model)
    return [field.alias or name for name, field in model.model_fields.items()]


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML keeps the last of two equal keys silently; here that is an error, for it loses a family."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise ChorusError(f"params.yaml: the key '{key}' stands twice (line {key_node.start_mark.line + 1})")
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse_params(text: str) -> Params:
    """Validate the text of a `params.yaml`; raises `ChorusError` naming each wrong key, its value and the remedy."""
    try:
        content = yaml.load(text, _UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise ChorusError(f"params.yaml is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise ChorusError("params.yaml holds no keys; README.md has a table of them")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors()]
        raise ChorusError("params.yaml: " + "\n             ".join(lines)) from None


def read_params(path: Path) -> Params:
    """Read and validate `params.yaml`."""
    try:
        return parse_params(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ChorusError(f"{path} is missing; run in the project's folder") from None
