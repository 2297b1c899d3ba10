"""Measure the chosen model against the champion, and tell by the rules of `gate` whether it may take its place.

Both are tried out as packages, each in a fresh process, and measured now: against the same real images of the `gate`
split, by the same judges, with equally many images of the same seed, which is the one that the judge stage drew the
chosen model's with. Where the champion points is outside of what DVC hashes: `pipeline verify`, which ends every flow,
runs this stage again where it has moved. A failed gate is a result.
"""

import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline import registry
from pipeline.compute import Runtime, set_up
from pipeline.data.dataset import load_split, read_manifest
from pipeline.evaluation import store
from pipeline.evaluation.features import Features
from pipeline.evaluation.intervals import CONFIDENCE, Estimate
from pipeline.evaluation.memorisation import memorisation
from pipeline.evaluation.pictures import grid, write_png
from pipeline.files import read_json, write_json
from pipeline.gate.comparison import compare, without
from pipeline.gate.rules import AUTHENTIC, Model, Opponent, Rule, passed, verdicts
from pipeline.project import Project
from pipeline.randomness import derive_seed
from pipeline.stages._scale import Scale
from pipeline.stages._trial import Tried, try_out
from pipeline.tracking import Tracker
from pipeline.weights import SCHEMA

SPLIT, FRESH = "gate", "val"  # FRESH takes the place of generated images where real ones are measured
SHOWN = 64


@dataclass(frozen=True)
class Scored:
    """A model and what its images measure: nothing of a model that draws none."""

    tried: Tried
    metrics: Mapping[str, float]
    estimates: Mapping[str, Estimate]

    def facts(self) -> dict[str, Any]:
        """Return what gate.json tells of it; a metric that is no number becomes null."""
        tried = self.tried
        return {
            "fault": tried.fault,
            "metrics": {name: value if math.isfinite(value) else None for name, value in self.metrics.items()},
            "milliseconds": tried.milliseconds,
            "passes": tried.passes,
            "megabytes": tried.megabytes,
        }

    def model(self) -> Model:
        return Model(self.tried.fault, self.metrics, self.tried.milliseconds, self.tried.megabytes)


class Gauge:
    """What both models are measured with: the judges, and the images that copies are looked for in."""

    def __init__(self, project: Project, runtime: Runtime) -> None:
        self.project, self.device = project, runtime.device
        self.judges: list[str] = store.read_reference(project.reference)["judges"]
        self.scale = Scale(project, runtime, self.judges).against_split(SPLIT)
        manifest = read_manifest(project.prepared)
        self.shape = (manifest["channels"], manifest["size"], manifest["size"])
        self.train, self.held_out = (load_split(project.prepared, name).images for name in ("train", SPLIT))

    @property
    def spreads(self) -> dict[str, float]:
        """What makes the judges' distances comparable, by metric."""
        return {ruler.name: ruler.spread for ruler in self.scale.rulers.values()}

    def score(self, tried: Tried) -> Scored:
        """Measure the images of a model that was tried out."""
        if tried.images is None:
            return Scored(tried, {}, {})
        if tried.images.shape[1:] != self.shape:
            shapes = ["×".join(map(str, shape)) for shape in (tried.images.shape[1:], self.shape)]
            fault = f"it draws images of {shapes[0]} (channels, height, width), and the data are {shapes[1]}"
            return Scored(Tried(None, fault, None, None, tried.megabytes), {}, {})
        found = self.scale.features(tried.images)
        return Scored(tried, self.metrics(found, tried.images), self.scale.estimates(found))

    def of_real(self) -> dict[str, float]:
        """Measure real images that nobody has learnt from in the place of generated ones, no more than those are."""
        samples = self.project.params.judge.samples
        images = load_split(self.project.prepared, FRESH).images[:samples]
        seen = {name: store.read_features(self.project.reference, FRESH, name) for name in self.judges}
        features = {name: one.take(slice(samples)) for name, one in seen.items()}
        return self.metrics(features, torch.from_numpy(np.array(images)))

    def metrics(self, features: Mapping[str, Features], images: Tensor) -> dict[str, float]:
        """Return every metric by every judge as the judge stage measures it, and the share of authentic images."""
        copies = memorisation(images, self.train, self.held_out, self.device)
        return self.scale.metrics(features) | {AUTHENTIC: copies.authentic}


def run(project: Project) -> None:
    """Write report/gate.json, and in report/gate a sheet of each model's images of the same latents."""
    runtime = set_up(project.params.compute)
    tracker, gauge = Tracker(project.root), Gauge(project, runtime)
    chosen = read_json(project.chosen / "recipe.json")
    seed = derive_seed(project.params.seed, "judge", chosen["name"])
    shutil.rmtree(project.gate_pictures, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="chorus-") as temporary:
        workspace = Path(temporary)
        with registry.packed(project.chosen) as (content, identity):
            package = registry.write_candidate(content, workspace / "candidate")
        candidate = gauge.score(tried(project, package, seed, runtime, "candidate"))
        champion = read_champion(project, tracker, identity, workspace)
        other = None
        if champion and champion.folder:
            other = gauge.score(tried(project, champion.folder, seed, runtime, "champion"))
    opponent = against(candidate, champion, other, gauge)
    real = gauge.of_real()
    rules = verdicts(project.params.gate, candidate.model(), opponent, real, gauge.judges)
    shown = {key: chosen[key] for key in ("kind", "name")}
    facts = {
        "schema": SCHEMA,
        "passed": passed(rules),
        "split": SPLIT,
        "images": len(gauge.held_out),
        "samples": project.params.judge.samples,
        "seed": seed,
        "confidence": CONFIDENCE,
        "judges": gauge.judges,
        "candidate": {"content": identity, **shown, **candidate.facts()},
        "champion": champion and champion.facts(opponent, other),
        "real": real,
        "comparison": list(opponent.rows) if opponent else [],
        "rules": [asdict(rule) for rule in rules],
    }
    write_json(project.verdict, facts)
    tell(rules)


@dataclass(frozen=True)
class Champion:
    """The version that users load. folder: where its package was fetched to; None where it is not to be measured."""

    version: str
    content: str
    itself: bool
    folder: Path | None
    problem: str | None

    def facts(self, opponent: Opponent | None, scored: Scored | None) -> dict[str, Any]:
        """Return what gate.json tells of it."""
        about = {"version": self.version, "content": self.content, "itself": self.itself}
        problem = opponent.problem if opponent else self.problem
        return about | {"problem": problem} | (scored.facts() if scored else {})


def read_champion(project: Project, tracker: Tracker, candidate: str, workspace: Path) -> Champion | None:
    """Fetch the champion from the registry, None where there is none; candidate: the content that is gated.

    One that was registered with that content is the candidate itself, where its files still are what was registered.
    """
    model = project.params.register_.model
    number = registry.alias_number(tracker, model, registry.CHAMPION)
    if number is None:
        return None
    content = registry.said_content(tracker, model, number)
    folder, fault = registry.fetch_whole(tracker, model, number, workspace / "champion")
    if content == candidate and fault is None:
        return Champion(number, content, True, None, None)
    return Champion(number, content, False, folder, fault)


def tried(project: Project, package: Path, seed: int, runtime: Runtime, name: str) -> Tried:
    """Try a package out and keep a sheet of what it draws first."""
    with tempfile.TemporaryDirectory(prefix="chorus-") as workspace:
        found = try_out(package, Path(workspace), project.params.judge.samples, seed, runtime)
    if found.images is not None:
        write_png(project.gate_pictures / f"{name}.png", grid(found.images[:SHOWN]))
    said = found.fault or f"{found.milliseconds:.3g} ms an image, {found.megabytes:.3g} MB"
    print(f"gate  {name}: {said}", flush=True)
    return found


def against(candidate: Scored, champion: Champion | None, other: Scored | None, gauge: Gauge) -> Opponent | None:
    """Return the champion as the rules see it."""
    if champion is None:
        return None
    if champion.itself:
        return Opponent(champion.version, itself=True)
    problem = champion.problem or (other.tried.fault if other else None)
    if problem or other is None:
        return Opponent(champion.version, problem=problem)
    sides = (candidate.estimates, other.estimates, gauge.spreads)
    return Opponent(champion.version, rows=compare(*sides), without=without(*sides))


def tell(rules: list[Rule]) -> None:
    """Print each rule's verdict, and the whole one."""
    for rule in rules:
        print(f"gate  {rule.verdict:<12}{rule.name}: {rule.why}", flush=True)
    print(f"gate  {'passed' if passed(rules) else 'failed'}", flush=True)
