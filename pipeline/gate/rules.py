"""The rules of the gate: each tells whether the candidate fulfils it, by which numbers, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.gate.comparison import TOGETHER
from pipeline.params import Gate

PASSED, FAILED, APART = "passed", "failed", "not applied"
FLOORS = ("precision", "recall", "coverage")
AUTHENTIC = "authentic"


@dataclass(frozen=True)
class Rule:
    """One rule's verdict (`PASSED`, `FAILED`, `APART`); value and limit: what was compared, None where nothing was."""

    name: str
    verdict: str
    why: str
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Model:
    """What is known of a packaged model.

    fault: why it does not do what it has to in a fresh process, None where it does. metrics: by name, with `authentic`,
    empty where it draws no images. milliseconds: of drawing an image. megabytes: of the package.
    """

    fault: str | None
    metrics: Mapping[str, float]
    milliseconds: float | None
    megabytes: float


@dataclass(frozen=True)
class Opponent:
    """The champion.

    itself: the candidate is that version. problem: why it cannot be measured. rows: see `compare`. without: judges that
    have too few images for a row.
    """

    version: str
    itself: bool = False
    problem: str | None = None
    rows: Sequence[Mapping[str, Any]] = ()
    without: Sequence[str] = ()


def verdicts(
    settings: Gate, candidate: Model, champion: Opponent | None, real: Mapping[str, float], judges: Sequence[str]
) -> list[Rule]:
    """Return every rule's verdict; real: the same metrics of real images that nobody has learnt from."""
    draws = bool(candidate.metrics)
    quality = [
        *(improvement(settings.improvement, champion) if draws else []),
        *(floor(kind, getattr(settings, kind), candidate.metrics, real, judges) for kind in FLOORS if draws),
        *([authentic(settings.authentic, candidate.metrics, real)] if draws else []),
    ]
    return [
        smoke(candidate),
        *quality,
        most("milliseconds", settings.max_milliseconds, candidate.milliseconds, "ms an image"),
        most("megabytes", settings.max_megabytes, candidate.megabytes, "MB"),
    ]


def passed(rules: Sequence[Rule]) -> bool:
    """Whether no rule that applies has failed."""
    return all(rule.verdict != FAILED for rule in rules)


def smoke(model: Model) -> Rule:
    """Tell whether the packaged model works in a fresh process."""
    if model.fault:
        return Rule("smoke", FAILED, f"in a fresh process: {model.fault}")
    return Rule("smoke", PASSED, "loads in a fresh process and draws the same images again")


def improvement(share: float, champion: Opponent | None) -> list[Rule]:
    """Tell whether the candidate is nearer than the champion, and whether any judge finds it farther.

    By all judges together, of which none may be missing, the whole interval of the gain has to lie above `share` of the
    champion's distance; by none alone may the candidate be farther beyond the noise.
    """
    names = ("improvement", "agreement")
    if champion is None:
        return [Rule(name, APART, "there is no champion yet") for name in names]
    if champion.itself:
        return [Rule(name, APART, f"it is the champion, version {champion.version}") for name in names]
    if champion.problem:
        why = f"the champion, version {champion.version}, cannot be measured: {champion.problem}"
        return [Rule(name, FAILED, why) for name in names]
    if not champion.rows:
        return [Rule(name, FAILED, "the images are too few for an interval by any judge") for name in names]
    if champion.without:
        few = f"the images are too few for an interval by {' and '.join(champion.without)}"
        return [Rule("improvement", FAILED, few), _none_farther(champion)]
    return [_nearer(share, champion), _none_farther(champion)]


def _nearer(share: float, champion: Opponent) -> Rule:
    row = next(row for row in champion.rows if row["metric"] == TOGETHER)
    apart, before = row["difference"], row["champion"]["value"]
    gain, low, high = -apart["value"], -apart["high"], -apart["low"]
    limit = share * max(before, 0.0)
    verdict = PASSED if low > limit else FAILED
    why = (
        f"by all judges together {gain:.3g} nearer than version {champion.version} at {before:.3g}, interval "
        f"{low:.3g} to {high:.3g}; it has to lie above {limit:.3g}"
    )
    return Rule("improvement", verdict, why, low, limit)


def _none_farther(champion: Opponent) -> Rule:
    farther = [
        row["metric"]
        for row in champion.rows
        if row["metric"] != TOGETHER and row["difference"]["beyond_noise"] and row["difference"]["value"] > 0
    ]
    if farther:
        return Rule("agreement", FAILED, f"farther than version {champion.version} by {' and '.join(farther)}")
    return Rule("agreement", PASSED, f"by no judge farther than version {champion.version} beyond the noise")


def floor(
    kind: str, share: float | None, metrics: Mapping[str, float], real: Mapping[str, float], judges: Sequence[str]
) -> Rule:
    """Tell whether a metric reaches that share of the real images' own by every judge; the worst judge is told."""
    if share is None:
        return Rule(kind, APART, "no floor is set")

    def reach(judge: str) -> float:
        name = f"{kind}_{judge}"
        # What is no number reaches nothing.
        return metrics[name] - share * real[name] if metrics[name] == metrics[name] else -1.0

    worst = min(judges, key=reach)
    return _at_least(kind, share, metrics[f"{kind}_{worst}"], real[f"{kind}_{worst}"], f" by {worst}")


def authentic(share: float | None, metrics: Mapping[str, float], real: Mapping[str, float]) -> Rule:
    """Tell whether as many images as that share of the real images' are no copies."""
    if share is None:
        return Rule(AUTHENTIC, APART, "no floor is set")
    return _at_least(AUTHENTIC, share, metrics[AUTHENTIC], real[AUTHENTIC], "")


def _at_least(name: str, share: float, value: float, of_real: float, judge: str) -> Rule:
    limit = share * of_real
    verdict = PASSED if value >= limit else FAILED
    why = f"{value:.3f}{judge}, of real images {of_real:.3f}; at least {limit:.3f}"
    return Rule(name, verdict, why, value, limit)


def most(name: str, limit: float | None, value: float | None, unit: str) -> Rule:
    """Tell whether a cost is within its limit."""
    if value is None:
        return Rule(name, APART, "it draws no images")
    if limit is None:
        return Rule(name, APART, f"{value:.3g} {unit}; no limit is set", value)
    return Rule(name, PASSED if value <= limit else FAILED, f"{value:.3g} {unit}; at most {limit:g}", value, limit)
