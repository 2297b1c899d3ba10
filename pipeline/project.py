"""Where each stage's files lie: the one place that spells paths."""

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import ChorusError
from pipeline.params import Params, read_params

FIRST = 1  # rung


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
        """Folder of all families' weights: rungN/FAMILY/MEMBER/SNAPSHOT; what follows the rung is a candidate's id."""
        return self.root / "models" / "members"

    @property
    def evaluation(self) -> Path:
        """Folder of what was measured: rungN/FAMILY."""
        return self.root / "evaluation"

    @property
    def rungs(self) -> tuple[int, ...]:
        """Numbers of the rungs that members are trained in, one after another."""
        return (FIRST, *(later.rung for later in self.params.racing.rungs))

    def family_folder(self, family: str, rung: int = FIRST) -> Path:
        """Folder of what a family trained in a rung."""
        return self.members / f"rung{rung}" / family

    def evaluation_folder(self, family: str, rung: int = FIRST) -> Path:
        """Folder of what was measured of the family's snapshots of a rung."""
        return self.evaluation / f"rung{rung}" / family

    def race_folder(self, rung: int) -> Path:
        """Folder of who goes on to a later rung: FAMILY.json, and table.json for people.

        It lies in `evaluation`, which everything after the race reads anyway, whether there is one or not.
        """
        return self.evaluation / "race" / f"rung{rung}"

    def snapshot(self, candidate: str) -> Path:
        """Return a candidate's weights, whichever rung trained it; raises `ChorusError` where none of them did.

        candidate: FAMILY/MEMBER/SNAPSHOT. SNAPSHOT is the images seen since the first rung, so no two rungs share one.
        Students and their controls are found too, as STUDENT/ROLE/SNAPSHOT, and what a strategy made: as FOLDER/NAME,
        or as STRATEGY/A/B where it takes a candidate's place.
        """
        if candidate.count("/") == 1:
            return self.fused / candidate
        if candidate.partition("/")[0] in self.params.students:
            return self.student_weights / candidate
        if (made := self.fused / candidate).is_dir():
            return made
        return self._in_a_rung(self.members, candidate)

    def measured(self, candidate: str) -> Path:
        """Return the folder of a candidate's features and grid; raises `ChorusError` where no rung has it."""
        return self._in_a_rung(self.evaluation, candidate)

    def _in_a_rung(self, folder: Path, candidate: str) -> Path:
        for rung in self.rungs:
            if (path := folder / f"rung{rung}" / candidate).is_dir():
                return path
        raise ChorusError(f"{candidate} lies in no rung of {folder}; run `dvc repro` or `dvc pull`")

    @property
    def fused(self) -> Path:
        return self.root / "models" / "fused"

    @property
    def students(self) -> Path:
        """Folder of all that is known of students; `teacher.json` says what they learn from, if there are any or not.

        DVC's stages cannot depend on a list of folders, so they depend on this one, which the fusion makes.
        """
        return self.root / "models" / "students"

    @property
    def student_weights(self) -> Path:
        """Folder of the students' weights: NAME/ROLE/SNAPSHOT, where ROLE is `student` or `control`."""
        return self.students / "weights"

    @property
    def student_evaluation(self) -> Path:
        """Folder of what was measured of students: NAME."""
        return self.students / "evaluation"

    @property
    def chosen(self) -> Path:
        """Folder of what is shipped: the fused sampler, or the student that takes its place."""
        return self.root / "models" / "chosen"

    @property
    def report(self) -> Path:
        return self.root / "report"

    @property
    def verdict(self) -> Path:
        """What the gate says of the chosen model."""
        return self.report / "gate.json"

    @property
    def gate_pictures(self) -> Path:
        """Folder of the sheets that the gate drew: candidate.png and, where there is a champion, champion.png."""
        return self.report / "gate"

    @property
    def openings(self) -> Path:
        """Committed: who has opened the `test` split, when and why, a line of JSON each."""
        return self.root / "test-openings.jsonl"

    @property
    def registration(self) -> Path:
        return self.root / "registration.json"

    @property
    def weights(self) -> dict[str, Path]:
        """`reference.weights`: files of published extractors; relative ones are taken from the root."""
        return {name: self.root / path.expanduser() for name, path in self.params.reference.weights.items()}

    @property
    def warm(self) -> Path:
        """Undeclared, ignored by git and DVC: weights that families start from, each in a folder named by its hash."""
        return self.root / ".warm"

    @property
    def checkpoints(self) -> Path:
        """Undeclared, ignored by git and DVC: what an interrupted training resumes from."""
        return self.root / ".checkpoints"
