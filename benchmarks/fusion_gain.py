"""What an ensemble and its fusion are worth against one model of the same compute, over whole repetitions.

    python benchmarks/fusion_gain.py --data FOLDER --work FOLDER [--source fashion-mnist|mnist] [--repetitions 10]
                                     [--tflop 12] [--minutes 170] [--literal 0] [--students 0] [--cascades 0]
                                     [--images 0] [--again 3]

Every repetition trains everything anew with a seed of its own, in four ways of spending the same operations:
- `ensemble`: the families of benchmarks/fusion_gain.yaml race for the budget, and two of three go on; every strategy is
  fitted and measured.
- `auto`: the same race, with `racing.keep: auto`: what the race foretells says how many go on.
- `plain`: the family of the member that is nearest on val gets all of it; of its snapshots the nearest is taken.
- `matched`: the family that the race placed first gets what a race with one survivor would leave it, with as many
  candidates to look at on val as the ensemble had, and the fusion is applied to its own snapshots.
The repetitions of --literal also have the costly and the literal strategies, those of --students a student of the
ensemble's winner with its control (trained beside the budget), those of --cascades a cascade of two that gets all of
the budget, those of --images `plain` on train and val together (density ratios consume val's real images), on a quarter
and on a sixteenth of train.
Extractors and prepared images are made once in --work. Arms are measured on the gate split, which takes no decision,
and once more, from fresh draws, on the test split, which nothing has looked at: what is claimed has to hold there, too.
What extractors, measuring, fusing and the student take is counted in operations of networks, too; judging is no part
of any way, and algebra on features is in the seconds alone. Results are appended to
benchmarks/results/fusion_gain-SOURCE.jsonl, a line an arm (benchmarks/fusion_gain_table.py shows them); a run that was
ended goes on with the first way that is not complete there. --again: repetitions to forget before it begins. --minutes:
begin no repetition that would not end by then.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipeline.files import write_text
from pipeline.tracking import quieten

ROOT = Path(__file__).parents[1]
RECIPE = yaml.safe_load((ROOT / "benchmarks" / "fusion_gain.yaml").read_text())
FAMILIES: dict[str, dict[str, Any]] = RECIPE["families"]
RUNGS = [{"rung": 2, "after": 1}]
KEEP = 0.5
SNAPSHOTS = 6  # of a plain single, of which the nearest is taken
FUSING = ("evaluate", "rank", "fuse", "choose")  # what a way does beside its training
STUDENT = ("distill", "evaluate-student")
COUNTED = ("reference", *FUSING, *STUDENT)  # stages whose operations are counted; training's are the budget
JUDGING = ("judge", "open")  # part of no way
OPEN = ("judge", "--split", "test", "--by", "benchmarks/fusion_gain.py", "--why", "what the study claims")
ENSEMBLE, AUTO, PLAIN, MATCHED, CASCADE, MORE = "ensemble", "auto", "plain", "matched", "cascade", "more images"
WAYS = (ENSEMBLE, AUTO, PLAIN, MATCHED)
FEWER = {
    "a quarter of the images": 4,
    "a sixteenth of the images": 16,
}  # by what the number of training images is divided
OPERATIONS, SECONDS = "operations.txt", "seconds.txt"  # files of a project: what its stages took
TEST = "test.json"  # a project's file: what its arms measure on the test split
SOURCES = ("fashion-mnist", "mnist")
WORKERS = len(os.sched_getaffinity(0))


def results_file(source: str) -> Path:
    return ROOT / "benchmarks" / "results" / f"fusion_gain-{source}.jsonl"


def read_lines(source: str) -> list[dict[str, Any]]:
    """Return all lines; a last one that a kill cut off is left out."""
    path = results_file(source)
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def as_line(content: dict[str, Any]) -> str:
    """Return a line of JSON with seven digits of every number that has a fraction: more would only take room."""
    return json.dumps(json.loads(json.dumps(content), parse_float=lambda text: float(f"{float(text):.7g}"))) + "\n"


class Workshop:
    """The folder in which a source's images and extractors lie, and in which projects come and go."""

    def __init__(self, folder: Path, source: str, data: Path) -> None:
        self.folder, self.source, self.data = folder, source, data
        self.store = f"sqlite:///{folder / 'mlflow.db'}"
        self.images = {MORE: "more", **{way: f"{divisor}th" for way, divisor in FEWER.items()}}

    def params(self, **changed: Any) -> dict[str, Any]:
        """Return the project's params.yaml with the study's sections and these."""
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        for name, section in {**RECIPE["sections"], **changed}.items():
            params[name] = {**params[name], **section} if name in RECIPE["sections"] else section
        watch = f"data/sources/{self.source}.txt"
        params["data"] |= {"source": self.source, "root": str(self.data.resolve()), "watch": watch}
        return params

    def project(self, name: str, prepared: str = "prepared", **changed: Any) -> Path:
        """Return a project that shares the images and the extractors."""
        root = self.folder / name
        (root / "data").mkdir(parents=True, exist_ok=True)
        (root / "params.yaml").write_text(yaml.safe_dump(self.params(**changed), sort_keys=False))
        for target, origin in (("prepared", prepared), ("reference", "reference")):
            if not (root / "data" / target).exists():
                (root / "data" / target).symlink_to(self.folder / "shared" / "data" / origin)
        return root

    def run(self, root: Path, *command: str) -> None:
        """Run a stage's command there, and note its processor time; its output goes to the project's log."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": self.store}
        with (root / "log.txt").open("a") as log:
            counter = [str(ROOT / "benchmarks" / "counted.py"), str(root / OPERATIONS)]
            process = subprocess.Popen(
                [sys.executable, *(counter if command[0] in COUNTED else ["-m", "pipeline"]), *command],
                cwd=root,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"python -m pipeline {' '.join(command)} failed; see {root / 'log.txt'}")
        with (root / SECONDS).open("a") as lines:
            stage = "open" if command == OPEN else command[0]
            lines.write(f"{stage} {usage.ru_utime + usage.ru_stime:.1f}\n")

    def share(self) -> None:
        """Make the images, the extractors, and the images of train and val as one split, unless they are there."""
        root = self.folder / "shared"
        if not (root / "data" / "reference" / "reference.json").exists():
            root.mkdir(parents=True, exist_ok=True)
            budget = {"tflop": 1, "families": len(FAMILIES)}  # nothing is trained here
            params = self.params(families=FAMILIES, budget=budget)
            (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
            shutil.copytree(ROOT / "data" / "sources", root / "data" / "sources", dirs_exist_ok=True)
            for stage in ("ingest", "prepare", "reference"):
                self.run(root, stage)
        for way, name in self.images.items():
            self.resize(root / "data" / "prepared", root / "data" / name, FEWER.get(way))

    def resize(self, prepared: Path, target: Path, divisor: int | None) -> None:
        """Write prepared images of which `train` has its first 1/divisor, or, where that is None, val's images too."""
        if (target / "manifest.json").exists():
            return
        shutil.copytree(prepared, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
        manifest = json.loads((prepared / "manifest.json").read_text())
        for part in ("", "_labels"):
            train, val = (np.load(prepared / f"{split}{part}.npy") for split in ("train", "val"))
            np.save(
                target / f"train{part}.npy", train[: len(train) // divisor] if divisor else np.concatenate((train, val))
            )
        counts = manifest["counts"]
        counts["train"] = counts["train"] // divisor if divisor else counts["train"] + counts["val"]
        manifest["hash"] = f"{manifest['hash']}-{target.name}"
        (target / "manifest.json").write_text(json.dumps(manifest))


def at_once(tasks: Iterable[Callable[[], None]]) -> None:
    """Run tasks, as many at a time as there are cores; raises what the first one that fails raises."""
    with ThreadPoolExecutor(WORKERS) as pool:
        for future in [pool.submit(task) for task in tasks]:
            future.result()


def train(shop: Workshop, root: Path) -> None:
    """Run what is missing of the stages from training to the fusion in a project."""
    if (root / "models" / "fused" / "strategies.json").exists():
        return
    params = yaml.safe_load((root / "params.yaml").read_text())

    def for_each(stage: str, folder: str, done: str, *rung: str) -> None:
        left = [family for family in params["families"] if not (root / folder / family / done).exists()]
        at_once([lambda family=family: shop.run(root, stage, family, *rung) for family in left])

    for_each("train", "models/members/rung1", "family.json")
    for_each("evaluate", "evaluation/rung1", "evaluation.json")
    for later in params["racing"]["rungs"]:
        number = str(later["rung"])
        if not (root / "evaluation" / "race" / f"rung{number}" / "table.json").exists():
            shop.run(root, "rank", "--rung", number)
        for_each("advance", f"models/members/rung{number}", "family.json", "--rung", number)
        for_each("evaluate", f"evaluation/rung{number}", "evaluation.json", "--rung", number)
    shop.run(root, "fuse")


def judge(shop: Workshop, root: Path) -> None:
    """Run the stages after the fusion."""
    for student in yaml.safe_load((root / "params.yaml").read_text())["students"]:
        shop.run(root, "distill", student)
        shop.run(root, "evaluate-student", student)
    shop.run(root, "choose")
    shop.run(root, "judge")


def open_test(shop: Workshop, root: Path) -> None:
    """Measure all arms of a project on the test split, and leave what came of it in `TEST`."""
    quieten()
    from mlflow.artifacts import download_artifacts

    shop.run(root, *OPEN)
    opened = json.loads((root / "test-openings.jsonl").read_text().splitlines()[-1])["run"]
    download_artifacts(f"runs:/{opened}/{TEST}", dst_path=str(root), tracking_uri=shop.store)


def ensemble_of(shop: Workshop, repetition: int, tflop: float, literal: bool, students: bool) -> Path:
    """Return the project of a repetition's ensemble, with the costly and literal strategies, and with its students."""
    return shop.project(
        f"{repetition}-{ENSEMBLE}",
        families=FAMILIES,
        budget={"tflop": tflop, "families": len(FAMILIES)},
        racing={"rungs": RUNGS, "keep": KEEP, "branch": 1},
        students=RECIPE["students"] if students else {},
        fusion={"strategies": RECIPE["strategies"] + (RECIPE["literal"] if literal else [])},
        seed=repetition,
    )


def auto_of(shop: Workshop, repetition: int, tflop: float) -> Path:
    """Return the project of the race that decides how many go on; its first rung is the ensemble's, to the bit."""
    root = shop.project(
        f"{repetition}-{AUTO}",
        families=FAMILIES,
        budget={"tflop": tflop, "families": len(FAMILIES)},
        racing={"rungs": RUNGS, "keep": "auto", "branch": 1},
        fusion={"strategies": RECIPE["strategies"]},
        seed=repetition,
    )
    ensemble = shop.folder / f"{repetition}-{ENSEMBLE}"
    if not (root / SECONDS).exists():
        for folder in ("models/members/rung1", "evaluation/rung1"):
            shutil.copytree(ensemble / folder, root / folder, dirs_exist_ok=True)
        for name in (OPERATIONS, SECONDS):
            lines = (ensemble / name).read_text().splitlines()
            first = [[line for line in lines if line.split()[0] == stage] for stage in ("train", "evaluate")]
            write_text(root / name, "".join(f"{line}\n" for stage in first for line in stage[: len(FAMILIES)]))
    return root


def single_of(shop: Workshop, repetition: int, way: str, tflop: float) -> Path:
    """Return the project of one of the other ways, once the repetition's ensemble is fused."""
    ensemble = shop.folder / f"{repetition}-{ENSEMBLE}"
    pool = json.loads((ensemble / "models" / "fused" / "strategies.json").read_text())["pool"]
    family, spent, snapshots, strategies = nearest(pool), tflop, SNAPSHOTS, ["best"]
    if way == MATCHED:
        ranks = json.loads((ensemble / "evaluation" / "race" / "rung2" / "table.json").read_text())
        family = next(row["family"] for row in ranks["families"] if row["place"] == 1)
        spent, snapshots, strategies = tflop / 2 + tflop / 2 / len(FAMILIES), len(pool), RECIPE["matched"]
    if way == MORE:
        snapshots = 1  # the last: it has seen the images on which others are picked
    return shop.project(
        f"{repetition}-{way.replace(' ', '-')}",
        shop.images.get(way, "prepared"),
        families=RECIPE["cascade"] if way == CASCADE else {family: {**FAMILIES[family], "snapshots": snapshots}},
        budget={"tflop": spent, "families": 1},
        racing={"rungs": [], "keep": KEEP, "branch": 1},
        fusion={"strategies": strategies},
        seed=repetition,
    )


def nearest(pool: dict[str, float]) -> str:
    """Return the family of the nearest candidate."""
    return min(pool, key=lambda candidate: pool[candidate]).partition("/")[0]


def by_stage(file: Path) -> dict[str, float]:
    """Return the sums of a file's lines `STAGE NUMBER` by stage."""
    sums: dict[str, float] = defaultdict(float)
    for line in file.read_text().splitlines():
        stage, number = line.split()
        sums[stage] += float(number)
    return dict(sums)


def numbers(evidence: dict[str, Any]) -> dict[str, float]:
    """Return what is a single number of a strategy's evidence."""
    return {name: value for name, value in evidence.items() if isinstance(value, int | float)}


def lines_of(root: Path, repetition: int, way: str, tflop: float) -> list[dict[str, Any]]:
    """Return the lines of one way: each arm that was judged, and each candidate as it was measured on val."""
    metrics = json.loads((root / "report" / "metrics.json").read_text())
    common = {"repetition": repetition, "way": way, "tflop": tflop}
    shared = root.parent / "shared" / OPERATIONS  # of the extractors, which all ways use
    operations = by_stage(root / OPERATIONS) | (by_stage(shared) if shared.exists() else {})
    common |= {"seconds": by_stage(root / SECONDS), "operations": operations}
    strategies = json.loads((root / "models" / "fused" / "strategies.json").read_text())["strategies"]
    evidence = {row["name"]: numbers(row.get("evidence", {})) for row in strategies}
    intervals = {(arm["kind"], arm["name"]): arm for arm in metrics["intervals"]["arms"]}
    tested = {(arm["kind"], arm["name"]): arm for arm in json.loads((root / TEST).read_text())["arms"]}
    marks = {"member": metrics["best_member"], "strategy": metrics["winner"]}
    found = [
        {
            **common,
            "arm": arm["name"],
            "kind": arm["kind"],
            "chosen": marks.get(arm["kind"]) == arm["name"],
            "cost": arm["cost"],
            "metrics": arm["metrics"],
            "test": tested[arm["kind"], arm["name"]]["metrics"],
            "judges": metrics["headline"],
            "intervals": intervals.get((arm["kind"], arm["name"]), {}).get("distances", {}),
            "evidence": evidence.get(arm["name"], {}) if arm["kind"] == "strategy" else {},
        }
        for arm in metrics["arms"]
    ]
    for path in sorted((root / "evaluation").glob("rung*/*/evaluation.json")):
        for entry in json.loads(path.read_text())["candidates"]:
            found.append(
                {**common, "arm": entry["id"], "kind": "candidate", "nimg": entry["nimg"], "metrics": entry["metrics"]}
            )
    return found


def run(chosen: argparse.Namespace) -> None:
    """Run what is missing of the repetitions."""

    def of(repetition: int) -> list[dict[str, Any]]:
        return [line for line in read_lines(chosen.source) if line["repetition"] == repetition]

    shop = Workshop(chosen.work.resolve(), chosen.source, chosen.data)
    shop.folder.mkdir(parents=True, exist_ok=True)
    began, longest = time.monotonic(), 0.0
    shop.share()
    results_file(chosen.source).parent.mkdir(exist_ok=True)
    if chosen.again:
        kept = [line for line in read_lines(chosen.source) if line["repetition"] not in chosen.again]
        write_text(results_file(chosen.source), "".join(map(as_line, kept)))
    for repetition in range(chosen.repetitions):
        done = {line["way"] for line in of(repetition)}
        literal, students = repetition in chosen.literal, repetition in chosen.students
        ways = [
            *WAYS,
            *([CASCADE] if repetition in chosen.cascades else []),
            *([MORE, *FEWER] if repetition in chosen.images else []),
        ]
        missing = [way for way in ways if way not in done]
        if not missing:
            continue
        found = {line[key] for line in of(repetition) if line["way"] == ENSEMBLE for key in ("kind", "arm")}
        wanted = {*RECIPE["strategies"], *(RECIPE["literal"] if literal else []), *(["student"] if students else [])}
        if ENSEMBLE in done and not wanted <= found:
            raise SystemExit(f"repetition {repetition} was made without all arms: name it in --again, too")
        started = time.monotonic()
        if started - began + longest > 60 * chosen.minutes:
            print(f"{repetition} repetitions are complete; the minutes are over", flush=True)
            return
        ensemble = ensemble_of(shop, repetition, chosen.tflop, literal, students)
        train(shop, ensemble)

        def finish(way: str, number: int = repetition, around: Path = ensemble) -> None:
            if way == AUTO:
                root = auto_of(shop, number, chosen.tflop)
            else:
                root = around if way == ENSEMBLE else single_of(shop, number, way, chosen.tflop)
            train(shop, root)
            judge(shop, root)
            open_test(shop, root)
            with results_file(chosen.source).open("a") as file:
                file.write("".join(map(as_line, lines_of(root, number, way, chosen.tflop))))
            print(f"repetition {number}, {way}: done", flush=True)

        at_once([lambda way=way: finish(way) for way in missing])
        for way in ways:
            shutil.rmtree(shop.folder / f"{repetition}-{way.replace(' ', '-')}", ignore_errors=True)
        longest = max(longest, time.monotonic() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--source", choices=SOURCES, default=SOURCES[0])
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--tflop", type=float, default=12.0)
    parser.add_argument("--literal", type=int, nargs="*", default=[0])
    parser.add_argument("--students", type=int, nargs="*", default=[0])
    parser.add_argument("--cascades", type=int, nargs="*", default=[0])
    parser.add_argument("--images", type=int, nargs="*", default=[0])
    parser.add_argument("--again", type=int, nargs="*", default=[])
    parser.add_argument("--minutes", type=float, default=170.0)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
