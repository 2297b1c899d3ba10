"""The section `flow` of `params.yaml`: how stages are driven. No stage reads it, so no result depends on it."""

from typing import Literal

from pipeline.params.fields import Count, Section


class Flow(Section):
    """busy: what becomes of a run, or a stage, that finds another at work in the checkout.

    members_per_gpu: how many stages may share a GPU, as far as they are known to fit.
    """

    busy: Literal["wait", "refuse"] = "refuse"
    members_per_gpu: Count = 1
