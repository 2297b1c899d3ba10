"""What the register stage makes of the gate's verdict: tags of the version, and whether it is still of today."""

from typing import Any

from pipeline import registry
from pipeline.errors import ChorusError
from pipeline.files import read_json
from pipeline.project import Project
from pipeline.tracking import Tracker

NONE = "none"  # the champion that there is not


def read_verdict(project: Project) -> dict[str, Any]:
    """Return `report/gate.json`."""
    return dict(read_json(project.verdict))


def check_verdict(verdict: dict[str, Any], content: str) -> None:
    """Raise `ChorusError` where a verdict is of another model than the one with this content."""
    if verdict["candidate"]["content"] != content:
        raise ChorusError("report/gate.json tells of another model than models/chosen holds; run `dvc repro`")


def verdict_tags(verdict: dict[str, Any]) -> dict[str, str]:
    """Return a version's tags about the gate: the verdict, the champion, and each rule's with its reason."""
    champion = verdict["champion"]
    return {
        "chorus.gate": "passed" if verdict["passed"] else "failed",
        "chorus.gate.champion": champion["version"] if champion else NONE,
        **{f"chorus.gate.{rule['name']}": f"{rule['verdict']}: {rule['why']}" for rule in verdict["rules"]},
    }


def outdated(project: Project, tracker: Tracker) -> str | None:
    """Return why the verdict is not of today, None where it is: another champion is in use than it compared with.

    A version that has become the champion itself keeps the verdict by which it did.
    """
    verdict = read_verdict(project)
    model = project.params.register_.model
    now = registry.alias_number(tracker, model, registry.CHAMPION)
    then = verdict["champion"]["version"] if verdict["champion"] else None
    if now == then or (now and registry.said_content(tracker, model, now) == verdict["candidate"]["content"]):
        return None
    said = [f"version {number}" if number else NONE for number in (now, then)]
    return f"the champion is {said[0]}, and the gate compared with {said[1]}"
