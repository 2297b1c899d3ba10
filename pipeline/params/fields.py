"""What sections of `params.yaml` are made of: numbers that are checked strictly, and the rules of every section."""

import pkgutil
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

# Strict: YAML's `true` and "3" are no numbers.
Fraction = Annotated[float, Field(ge=0, le=1, strict=True)]
Decay = Annotated[float, Field(ge=0, lt=1, strict=True)]
Positive = Annotated[float, Field(gt=0, strict=True)]
NotNegative = Annotated[float, Field(ge=0, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]
Several = Annotated[int, Field(ge=2, strict=True)]
Samples = Annotated[int, Field(ge=64, strict=True)]
Flag = Annotated[bool, Field(strict=True)]

AUTO: Literal["auto"] = "auto"
NAME = r"^[a-z0-9][a-z0-9_-]*$"


class Section(BaseModel):
    """A section cannot be changed and knows no other keys than its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def registered(package: Any) -> tuple[str, ...]:
    """Names that a one-file-each registry holds, read from its file names so that nothing heavy is imported."""
    return tuple(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))
