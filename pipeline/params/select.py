"""The section `fusion.select`: which candidates enter the fusion."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.params.fields import Count, NotNegative, Section

OF_RULE = {"factor": "threshold", "count": "top", "noise": "prune"}


class Select(Section):
    """rule: what is kept. factor, count, noise: of one rule each."""

    rule: Literal["all", "threshold", "top", "greedy", "prune"] = "all"
    factor: Annotated[float, Field(ge=1, strict=True)] = 2.0
    count: Count = 8
    noise: NotNegative = 1.0

    @model_validator(mode="after")
    def _only_keys_of_the_rule(self) -> "Select":
        for key, rule in OF_RULE.items():
            # Defaults may stand beside any rule, as where all parameters are written out.
            if getattr(self, key) != type(self).model_fields[key].default and rule != self.rule:
                raise ValueError(f"'{key}' is of rule '{rule}', and the rule is '{self.rule}'; remove one of them")
        return self
