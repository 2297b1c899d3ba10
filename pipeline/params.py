"""`params.yaml` as frozen models: the only reader of the file, and the only place that says what it may hold."""

import pkgutil
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import pipeline.fusion.strategies
import pipeline.models
from pipeline.errors import ChorusError

NAME = r"^[a-z0-9][a-z0-9_-]*$"
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

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


def registered(package: Any) -> tuple[str, ...]:
    """Names that a one-file-each registry holds, read from its file names so that nothing heavy is imported."""
    return tuple(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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
        return self


class Compute(Section):
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: Count = 1


class Reference(Section):
    """Extractors: which decide (`selection`, the first one is the ruler), which judge, and how ours are trained."""

    selection: Literal["auto"] | Annotated[list[str], Field(min_length=1)] = "auto"
    judges: Literal["auto"] | Annotated[list[str], Field(min_length=1)] = "auto"
    weights: dict[str, Path] = {}
    kimg: Positive = 100

    @model_validator(mode="after")
    def _known_and_apart(self) -> "Reference":
        allowed = OWN_EXTRACTORS + PRETRAINED
        chosen = [name for names in (self.selection, self.judges) if names != "auto" for name in names]
        for name in [*chosen, *self.weights]:
            if name not in allowed:
                raise ValueError(f"unknown extractor '{name}'; allowed: {', '.join(allowed)}")
        if len(set(chosen)) < len(chosen):
            raise ValueError("an extractor is named twice; a judge must take no part in the selection")
        return self


class Family(Section):
    """One recipe, trained `replicas` times. Budgets count training images seen, in thousands (`kimg`)."""

    architecture: str
    replicas: Count = 1
    kimg: Positive
    batch: Annotated[int, Field(ge=2)] = 64
    snapshots: Count = 1
    latent: Count = 100
    width: Count = 64
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: Positive = 2e-4
    lr_discriminator: Positive | None = None
    betas: tuple[Fraction, Fraction] = (0.5, 0.999)
    momentum: Fraction = 0.9
    ema_halflife_kimg: Annotated[float, Field(ge=0)] = 10
    ema_rampup: Annotated[float, Field(gt=0, le=1)] | None = 0.05
    loss: Literal["minimax", "nonsaturating", "lsgan", "hinge"] | None = None
    kl_weight: Annotated[float, Field(ge=0)] | None = None
    sample_noise: bool | None = None

    @model_validator(mode="after")
    def _fits_architecture(self) -> "Family":
        allowed = registered(pipeline.models)
        if self.architecture not in allowed:
            raise ValueError(f"unknown architecture '{self.architecture}'; allowed: {', '.join(allowed)}")
        if self.architecture == "vae":
            if self.loss is not None or self.lr_discriminator is not None:
                raise ValueError("a vae has no discriminator: remove 'loss' and 'lr_discriminator'")
        elif self.kl_weight is not None or self.sample_noise is not None:
            raise ValueError(f"'kl_weight' and 'sample_noise' belong to a vae, not to '{self.architecture}'")
        return self


class Evaluation(Section):
    """How many images each candidate draws, and how many feature dimensions the ruler keeps (`auto`: by counts)."""

    samples: Annotated[int, Field(ge=64)] = 2000
    dims: Literal["auto", "all"] | Annotated[int, Field(ge=2)] = "auto"
    neighbours: Count = 3


class Fusion(Section):
    strategies: Annotated[list[str], Field(min_length=1)] = list(registered(pipeline.fusion.strategies))
    fit_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.5
    vote_draws: Annotated[int, Field(ge=2)] = 4

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
    samples: Annotated[int, Field(ge=64)] = 2000


class Register(Section):
    model: Annotated[str, Field(pattern=NAME)] = "chorus"


class Params(Section):
    seed: Annotated[int, Field(ge=0)] = 0
    data: Data
    compute: Compute = Compute()
    reference: Reference = Reference()
    families: Annotated[dict[Annotated[str, Field(pattern=NAME)], Family], Field(min_length=1)]
    evaluation: Evaluation = Evaluation()
    fusion: Fusion = Field(default_factory=Fusion)
    judge: Judge = Judge()
    register_: Register = Field(default=Register(), alias="register")

    def selection(self, labelled: bool) -> tuple[str, ...]:
        """Names of the extractors that decide, the ruler first; `labelled`: whether the data have classes."""
        if self.reference.selection == "auto":
            return ("classifier",) if labelled else ("selfsup",)
        return tuple(self.reference.selection)

    def judges(self, labelled: bool) -> tuple[str, ...]:
        """Names of the extractors that only judge: of another kind, seed or training than those that decide."""
        if self.reference.judges != "auto":
            return tuple(self.reference.judges)
        wanted = ("classifier-b", "selfsup", "selfsup-b") if labelled else ("selfsup", "selfsup-b", "pixels")
        return tuple(name for name in wanted if name not in self.selection(labelled))[:2]


def _explain(item: Any) -> str:
    """One pydantic error as `key = value: what is allowed`."""
    where = ".".join(str(part) for part in item["loc"] if part != "[key]")
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        return f"{where}: unknown key; allowed here: {', '.join(_allowed_keys(item['loc'][:-1]))}"
    if item["type"] == "missing":
        return f"{where}: missing"
    value = "" if isinstance(item["input"], dict | BaseModel) else f" = {item['input']!r}"
    return f"{where}{value}: {message}"


def _allowed_keys(location: tuple[Any, ...]) -> list[str]:
    """Keys of the section at `location`."""
    model: Any = Params
    for part in location:
        if part == "families":
            model = Family
        elif model is not Family or part in Family.model_fields:
            fields = {field.alias or name: field for name, field in model.model_fields.items()}
            model = fields[part].annotation
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
