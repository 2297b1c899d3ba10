"""The sections below `students`: what learns the fused sampler's images, and when it is shipped in its place."""

from pydantic import model_validator

from pipeline.params.family import Family
from pipeline.params.fields import NotNegative, Samples, Section


class Student(Family):
    """A recipe of one generator, and how many images of the fused sampler it learns from."""

    samples: Samples = 10_000

    @model_validator(mode="after")
    def _is_one_network(self) -> "Student":
        if not self.kimg:
            raise ValueError("'kimg' is missing; say how long to train")
        for key in ("replicas", "scheme", "snapshots", "warm_start", "ema_profiles"):
            default = type(self).model_fields[key].default
            if getattr(self, key) != default:
                raise ValueError(f"a student is one network, trained from the start to the end: leave '{key}' out")
        return self


class Choose(Section):
    """When a student is shipped in the fused sampler's place.

    tolerance: the share by which its distance on val may be larger; None: it is measured, and never shipped.
    """

    tolerance: NotNegative | None = None
