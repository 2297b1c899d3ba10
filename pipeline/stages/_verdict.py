"""What the register stage makes of the gate's verdict: tags of the version, and whether it is still of today."""

from typing import Any

from pipeline import registry
from pipeline.errors import ChorusError, PassingError
from pipeline.files import read_json
from pipeline.moves import GATE, moves_of, promote_in_place_of
from pipeline.params.redaction import redact
from pipeline.project import Project
from pipeline.registry import Version
from pipeline.tracking import Tracker

NONE = "none"  # the champion that there is not
ITSELF = "the gate"  # who signs for moves that nobody has asked for


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
        GATE: "passed" if verdict["passed"] else "failed",
        f"{GATE}.champion": champion["version"] if champion else NONE,
        **{f"{GATE}.{rule['name']}": f"{rule['verdict']}: {rule['why']}" for rule in verdict["rules"]},
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


def promote_if_passed(project: Project, tracker: Tracker, version: Version, verdict: dict[str, Any]) -> None:
    """Make a version the champion where `gate.auto_promote` asks for it and all rules are fulfilled, once.

    A version that was moved before stays where a person has put it since; but a move of the gate's own that was written
    down and not made is made. A champion that has moved since the gate compared with it stays, which is told and no
    error. Raises `PassingError` where the registry does not answer.
    """
    model, settings = version.model, project.params.gate
    champion = verdict["champion"] or {"version": None, "itself": False}
    if not settings.auto_promote or not verdict["passed"] or champion["itself"]:
        return
    if registry.alias_number(tracker, model, registry.CHAMPION) == version.number:
        return
    told = moves_of(registry.tags_of(tracker, model, version.number))
    if told and (told[-1].by, told[-1].after) != (ITSELF, version.number):
        return
    why = "all rules of the gate are fulfilled (gate.auto_promote)"
    try:
        promote_in_place_of(tracker, model, version.number, champion["version"], by=ITSELF, why=why)
    except PassingError:
        raise
    except ChorusError as error:
        print(f"register  not promoted: {redact(str(error))}", flush=True)
    else:
        print(f"register  {model} version {version.number} is the champion now: {why}", flush=True)
