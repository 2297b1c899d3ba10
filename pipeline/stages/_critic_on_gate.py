"""How well the fused critic tells images apart, for the judge stage."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.dataset import load_split
from pipeline.fusion.critic import FusedCritic, areas_of
from pipeline.project import Project
from pipeline.recipes import load_critic

MOST = 4096  # real images that are judged


@dataclass
class CriticOnGate:
    """How well the fused critic tells each arm's images from the real ones of a split that it has not seen.

    critic: None where no member has a discriminator. found: a row for each arm.
    """

    critic: FusedCritic | None
    rule: str
    real: Tensor
    found: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, project: Project, split: str, device: torch.device) -> "CriticOnGate":
        """Load the critic and the split's images."""
        folder = project.fused / "critic"
        if not folder.is_dir():
            return cls(None, "", torch.empty(0))
        critic, rule = load_critic(folder, device)
        return cls(critic, rule, torch.from_numpy(np.array(load_split(project.prepared, split).images[:MOST])))

    def look(self, name: str, kind: str, images: Tensor) -> None:
        """Judge an arm's images, uint8 N×C×H×W."""
        if self.critic is not None:
            self.found.append({"name": name, "kind": kind, **areas_of(self.critic, self.real, images)})

    def facts(self) -> dict[str, Any] | None:
        """Return what goes into the report: the rule, how many discriminators there are, and the arms' areas."""
        if self.critic is None:
            return None
        return {"rule": self.rule, "critics": len(self.critic.critics), "auc": self.found}
