"""Where each stage's files lie: the one place that spells paths."""

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.params import Params, read_params


@dataclass(frozen=True)
class Project:
    """A checkout: its root folder and its validated parameters. All paths that stages share are properties here."""

    root: Path
    params: Params = field(repr=False)

    @classmethod
    def load(cls, root: Path | None = None) -> "Project":
        """Read `params.yaml` in `root` (default: the working folder); raises `ChorusError` when it is wrong."""
        root = (root or Path.cwd()).resolve()
        return cls(root, read_params(root / "params.yaml"))

    @property
    def raw(self) -> Path:
        return self.root / "data" / "raw"

    @property
    def prepared(self) -> Path:
        return self.root / "data" / "prepared"

    @property
    def reference(self) -> Path:
        return self.root / "data" / "reference"

    @property
    def members(self) -> Path:
        """Folder of all families' weights; a candidate's id is its path below it: FAMILY/MEMBER/SNAPSHOT."""
        return self.root / "models" / "members"

    @property
    def evaluation(self) -> Path:
        return self.root / "evaluation"

    @property
    def fused(self) -> Path:
        return self.root / "models" / "fused"

    @property
    def report(self) -> Path:
        return self.root / "report"

    @property
    def registration(self) -> Path:
        return self.root / "registration.json"

    @property
    def weights(self) -> dict[str, Path]:
        """`reference.weights`: files of published extractors; relative ones are taken from the root."""
        return {name: self.root / path.expanduser() for name, path in self.params.reference.weights.items()}

    @property
    def checkpoints(self) -> Path:
        """Undeclared, ignored by git and DVC: what an interrupted training resumes from."""
        return self.root / ".checkpoints"
