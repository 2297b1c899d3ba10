"""Where a family's first weights come from, and that as it is pinned."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.params.fields import NAME, Section

UNPINNED = ""
MEMBER = re.compile(r"[a-z0-9][a-z0-9_-]*(/[a-z0-9][a-z0-9_-]*){1,2}")
ON_DISK = re.compile(r"(/|\./|\.\./|~/).*|.*\.safetensors")


class WarmStart(Section):
    """Weights that a family starts from.

    source: an alias or the number of a version of the registered model, FAMILY/MEMBER or FAMILY/MEMBER/SNAPSHOT of this
    checkout, or a file or folder on disk. version: the number of the registered version that `content` was found in.
    content: SHA-256 over the weights' files, by which a stage knows them; null where an alias leads to none yet, and
    the family starts without. A source alone, as people write it, has the content `UNPINNED`.
    """

    source: str
    version: Annotated[str, Field(pattern=r"^[1-9][0-9]*$")] | None
    content: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] | None

    @model_validator(mode="before")
    @classmethod
    def _from_a_source(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)  # `warm_start: 7`
        if isinstance(value, str):
            return {"source": value, "version": None, "content": UNPINNED}
        if not isinstance(value, dict | WarmStart) or {"source"} <= set(value) < {"source", "version", "content"}:
            raise ValueError("write the source alone; `python -m pipeline pin` adds version and content, always both")
        return value

    @field_validator("source")
    @classmethod
    def _is_of_a_kind(cls, source: str) -> str:
        if ON_DISK.fullmatch(source) or MEMBER.fullmatch(source) or re.fullmatch(NAME, source):
            return source
        raise ValueError(
            "no alias or number of a registered version, no FAMILY/MEMBER or FAMILY/MEMBER/SNAPSHOT, and no path, "
            "which begins with '/', './', '../' or '~/' or ends in '.safetensors'"
        )

    @property
    def kind(self) -> Literal["path", "member", "version", "alias"]:
        """What the source names."""
        if ON_DISK.fullmatch(self.source):
            return "path"
        if "/" in self.source:
            return "member"
        return "version" if self.source.isdecimal() else "alias"

    @property
    def pinned(self) -> bool:
        """Whether it is settled which weights these are, or that there are none yet."""
        return self.content != UNPINNED and (self.content is not None or self.kind == "alias")

    def __str__(self) -> str:
        return self.source + (f" (version {self.version})" if self.version and self.kind == "alias" else "")
