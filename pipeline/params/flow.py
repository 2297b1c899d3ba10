"""The section `flow` of `params.yaml`: how stages are driven. No stage reads it, so no result depends on it."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.params.fields import Count, NotNegative, Positive, Section


class Drift(Section):
    """When new images have drifted so far that a training starts.

    threshold: Fréchet distance of their small pixels from those that were trained on, as a share of these images'
    variance. It has to lie beyond chance too. images: how many new ones there have to be at least.
    """

    threshold: NotNegative = 0.05
    images: Annotated[int, Field(ge=4, strict=True)] = 100  # chance is measured between halves of two


class Flow(Section):
    """Limits and manners of a run.

    busy: what becomes of a run, or a stage, that finds another at work in the checkout.

    members_per_gpu: how many stages may share a GPU, as far as they are known to fit.

    checkpoint_remote: where nodes of a cluster copy checkpoints to, so that the loss of a node does not lose them: a
    folder that all of them see, or an address of an object store.

    retries: further attempts at a stage whose failure can pass.

    retry_seconds: before the first of them; each wait is twice as long as the one before.

    retry_failed_hours: after so long a training some of whose members failed is tried again; null: never.

    keep_days: how long `python -m flows.prune` keeps what neither the checkout nor the registry refers to.

    timeout: minutes that a stage may take; null sets no limit. timeouts: the same of single stages by name, or of all
    instances of one (`train`).
    """

    busy: Literal["wait", "refuse"] = "refuse"
    drift: Drift = Drift()
    checkpoint_remote: Annotated[str, Field(min_length=1)] | None = None
    members_per_gpu: Count = 1
    retries: Annotated[int, Field(ge=0, strict=True)] = 3
    retry_seconds: NotNegative = 10
    retry_failed_hours: NotNegative | None = 12
    keep_days: NotNegative = 30
    timeout: Positive | None = 1440
    timeouts: dict[str, Positive] = Field(default={})
