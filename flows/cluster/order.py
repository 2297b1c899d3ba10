"""What the head sends a node with a stage, and what the node sends back; both travel as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Order:
    """One stage to compute.

    upstream: the stages that it reads from. commit: of the clone to compute it in. lock: text of the head's `dvc.lock`,
    in which all stages above are recorded, empty where there is none.
    remote: name and settings of the DVC remote. threads: of the stage. surroundings: the head's, to compare with.
    environment: variables that the stage gets from the head. checkpoints: address that they are kept at, if at any.
    limit: seconds that the stage may take, and each of the transfers before and after it.
    """

    stage: str
    upstream: Sequence[str]
    commit: str
    lock: str
    remote: tuple[str, Mapping[str, Any]] = field(repr=False)  # it may hold credentials
    threads: int
    surroundings: Mapping[str, str] = field(repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    force: bool = False
    checkpoints: str | None = None
    limit: float | None = None

    def dump(self) -> str:
        """Return the order as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, line: str) -> "Order":
        content = json.loads(line)
        return cls(**{**content, "remote": tuple(content["remote"])})
