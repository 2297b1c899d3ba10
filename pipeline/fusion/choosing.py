"""Whether a student is shipped in the place of the fused sampler that it learnt from."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Arm:
    """One sampler in the comparison.

    kind: `strategy` (the fused sampler), `student`, or `control`, which is never shipped. distance: on val. size: bytes
    of its networks. passes: network passes that an image costs. classes: how many it can be asked for.
    """

    name: str
    kind: str
    distance: float
    size: int
    passes: float
    classes: int


def why_not(student: Arm, fused: Arm, tolerance: float | None) -> str | None:
    """Return why a student is not shipped; None for one that may be.

    It has to know the classes that the fused sampler knows, to be farther away by no more than the share `tolerance`,
    and to gain something: distance, bytes or passes.
    """
    if tolerance is None:
        return "choose.tolerance is null: students are only measured"
    if student.classes < fused.classes:
        return "it cannot be asked for classes, and the fused sampler can"
    if student.distance > (1 + tolerance) * fused.distance:
        farther = f"{student.distance / fused.distance - 1:.0%} farther away" if fused.distance else "farther away"
        return f"it is {farther}, and {tolerance:.0%} is allowed"
    if student.distance >= fused.distance and student.size >= fused.size and student.passes >= fused.passes:
        return "it is neither nearer nor smaller, and takes no fewer passes"
    return None


def choose(students: Sequence[Arm], fused: Arm, tolerance: float | None) -> Arm:
    """Return what is shipped: the nearest student that may be, or the fused sampler. Equal distances: the smaller."""
    fit = [student for student in students if why_not(student, fused, tolerance) is None]
    return min(fit, key=lambda arm: (arm.distance, arm.size), default=fused)
