"""The section `flow` of `params.yaml`: how stages are driven. No stage reads it, so no result depends on it."""

from typing import Literal

from pipeline.params.fields import Section


class Flow(Section):
    """busy: what becomes of a run, or a stage, that finds another at work in the checkout."""

    busy: Literal["wait", "refuse"] = "refuse"
