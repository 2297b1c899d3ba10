"""The sections below `families`: one recipe each."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

import pipeline.models
from pipeline.params.fields import Count, Decay, Flag, NotNegative, Positive, Section, Several, registered
from pipeline.params.warm import WarmStart

# What trains the architectures that are no plain GANs; said here, as asking their files would import torch.
OBJECTIVES = {"vae": "variational", "vaegan": "similarity", "flow": "matching"}
# Losses whose discriminator learns by cross-entropy; None in a recipe is the second.
ENTROPY = ("minimax", "nonsaturating")
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
# Schemes whose members depend on each other, so that one alone makes no sense.
_NEEDS_OTHERS = ("boosting", "cascade", "joint")
# Schemes that are ways of adversarial training alone.
_ADVERSARIAL = ("cascade", "joint")
BOOSTED = "boosted"  # the one member of a boosted family
OWNED = {
    "adversarial": _DISCRIMINATOR,
    "variational": ("kl_weight", "sample_noise"),
    "similarity": ("lr_discriminator", "dropout"),
    "matching": ("sampling_steps",),
}


class Regularisers(Section):
    """Penalties on the discriminator by their strengths; `every`: taken at each such step, times as strong."""

    r1: Positive | None = None
    r2: Positive | None = None
    gradient_penalty: Positive | None = None
    weight_clip: Positive | None = None
    every: Count = 1

    @property
    def penalised(self) -> bool:
        """Whether the discriminator's gradient is penalised."""
        return any((self.r1, self.r2, self.gradient_penalty))

    @model_validator(mode="after")
    def _every_has_a_penalty(self) -> "Regularisers":
        if self.every > 1 and not self.penalised:
            raise ValueError("'every' says how often penalties are taken, and there is none: give r1, r2 or more")
        return self


class Family(Section):
    """One recipe, trained `replicas` times. Budgets count training images seen, in thousands (`kimg`).

    kimg: of each replica; not read where `budget` shares out a total.
    """

    architecture: str
    replicas: Count = 1
    scheme: Literal["independent", "bagging", "boosting", "cascade", "joint"] = "independent"
    conditional: Flag = False
    warm_start: WarmStart | None = None
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
    ema_profiles: Flag = False
    loss: Literal["minimax", "nonsaturating", "lsgan", "hinge", "wasserstein", "relativistic"] | None = None
    regularisers: Regularisers = Regularisers()
    spectral_norm: Flag = False
    dropout: Decay | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5, strict=True)] = 0.0
    augment: list[Literal["color", "translation", "cutout"]] = Field(default=[])
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

    @property
    def members(self) -> tuple[str, ...]:
        """Names of what the family ends as: its replicas, or the mixture of them all where none is good by itself."""
        return (BOOSTED,) if self.scheme == "boosting" else tuple(f"r{replica}" for replica in range(self.replicas))

    @property
    def rampup(self) -> float | None:
        """`ema_rampup`; none after a warm start, for it makes the average forget what it starts from."""
        return None if self.warm_start and self.warm_start.content else self.ema_rampup

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

    @model_validator(mode="after")
    def _adversaries_fit(self) -> "Family":
        entropy = self.loss in (None, *ENTROPY)
        if self.label_smoothing and not entropy:
            raise ValueError(f"'label_smoothing' is for a cross-entropy: loss {' or '.join(ENTROPY)}, not {self.loss}")
        if self.scheme == "joint" and not entropy:
            raise ValueError(f"scheme joint trains with a cross-entropy: loss {' or '.join(ENTROPY)}, not {self.loss}")
        if self.scheme == "joint" and self.discriminators > 1:
            raise ValueError("scheme joint has one discriminator for all its generators; leave 'discriminators' out")
        if self.spectral_norm and self.architecture == "r3gan":
            raise ValueError("'spectral_norm' has nothing to divide by in r3gan, whose layers start at zero")
        if self.discriminator_weights != "mean" and self.discriminators == 1:
            raise ValueError("'discriminator_weights' weighs several 'discriminators', and there is one")
        return self

    @model_validator(mode="after")
    def _fits_scheme(self) -> "Family":
        if self.scheme in _NEEDS_OTHERS and self.replicas < 2:
            raise ValueError(f"scheme '{self.scheme}' is of several members: set 'replicas' to 2 or more")
        if self.scheme in _ADVERSARIAL and self.objective != "adversarial":
            raise ValueError(
                f"scheme '{self.scheme}' is for adversarial training, not for '{self.architecture}' "
                f"({self.objective}): use independent, bagging or boosting, or another architecture"
            )
        return self

    def _set(self) -> set[str]:
        """Names of the keys whose values are not the defaults."""
        return {name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default}
