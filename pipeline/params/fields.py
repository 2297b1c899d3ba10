"""What sections of `params.yaml` are made of: numbers that are checked strictly, and the rules of every section."""

from typing import Annotated

from pydantic import ConfigDict, Field

# Strict: YAML's `true` and "3" are no numbers.
Fraction = Annotated[float, Field(ge=0, le=1, strict=True)]
Decay = Annotated[float, Field(ge=0, lt=1, strict=True)]
Positive = Annotated[float, Field(gt=0, strict=True)]
NotNegative = Annotated[float, Field(ge=0, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]
Several = Annotated[int, Field(ge=2, strict=True)]
Samples = Annotated[int, Field(ge=64, strict=True)]

# A section cannot be changed and knows no other keys than its own.
SECTION = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
