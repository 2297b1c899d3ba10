"""The test stand: a template checkout in which all has run undisturbed, and the servers and the disk of the trials."""

import json
import random
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from tests.chaos import evidence, processes
from tests.chaos.disk import Disk
from tests.chaos.faults import FAULTS
from tests.chaos.services import MLflow, Prefect
from tests.chaos.trial import Trial, Unrecovered, WithoutEffect
from tests.chaos.undoing import undo
from tests.endtoend.checkout import Checkout

MODEL = {"lr": 0.001, "latent": 8, "width": 8}
PARAMS: dict[str, Any] = {
    "families": {
        "mlp": {"architecture": "mlp", "replicas": 2, "kimg": 6, "snapshots": 2, "lr": 0.0005, "width": 16},
        "vae": {"architecture": "vae", "kimg": 6, **MODEL},
        "dcgan": {"architecture": "dcgan", "kimg": 4, **MODEL},
    },
    "evaluation": {"samples": 256, "dims": "auto", "neighbours": 3},
    "judge": {"samples": 256},
    "reference": {"selection": "auto", "judges": "auto", "weights": {}, "kimg": 5},
    "flow": {"retries": 2, "retry_seconds": 1},
    "fusion": {"strategies": ["best", "weighted", "average"], "strategy": "auto", "fit_fraction": 0.5},
}
# Which stages are undone together; those that are quick come up more often.
SCENES = (
    *[("train@mlp", "train@vae")] * 3,
    *[("train@dcgan", "evaluate@dcgan")] * 2,
    ("fuse", "choose"),
    ("gate", "register"),
    ("ingest", "prepare", "reference"),
)
DISK = "disk full"


class Stand:
    """Carries out trials one after another in `folder`, always at the same path, which MLflow's store refers to."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.template = folder, folder / "trial" / "checkout", folder / "template"
        self.disk = Disk(folder / "trial" / "checkout")
        self.prefect = Prefect(folder / "prefect")
        self.calm: dict[str, dict[str, Any]] = {}  # by the undone stages: what they took and wrote undisturbed
        if (known := folder / "calm.json").exists():
            self.calm = json.loads(known.read_text())

    def __enter__(self) -> "Stand":
        self.folder.mkdir(parents=True, exist_ok=True)
        self.prefect.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.prefect.kill()
        self.disk.remove()

    def make_template(self) -> None:
        """Let the flow run once, undisturbed, from the images to the registered model."""
        self.disk.insert()
        Checkout(self.root, **PARAMS)
        trial = self.trial("template", (), random.Random(0))
        if wrong := trial.start_again():
            raise RuntimeError(f"the undisturbed run: {wrong}; see {trial.log}")
        shutil.copytree(self.root, self.template, symlinks=True)

    @cached_property
    def expected(self) -> dict[str, Any]:
        return evidence.results(self.template)

    def commands(self) -> dict[str, str]:
        """Return the commands of all stages, none before there is a template."""
        lock = self.template / "dvc.lock"
        stages = yaml.safe_load(lock.read_text())["stages"] if lock.exists() else {}
        return {name: entry["cmd"] for name, entry in stages.items()}

    def trial(self, name: str, undone: tuple[str, ...], draws: random.Random) -> Trial:
        environment = {
            "PYTHONPATH": str(self.root),
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "PREFECT_API_URL": self.prefect.url,
            "PREFECT_HOME": str(self.folder / "client"),
            # State that DVC keeps of a checkout by its path, which here is that of many.
            "DVC_SITE_CACHE_DIR": str(self.root / ".dvc/tmp/site"),
            "CHORUS_CHECKPOINT_SECONDS": "0.1",
            "OMP_NUM_THREADS": "1",
        }
        return Trial(name, self.root, undone, self.commands(), draws, environment)

    def prepared(self, name: str, undone: tuple[str, ...], draws: random.Random) -> Trial:
        """Return a trial in a fresh copy of the template with these stages undone."""
        self.disk.insert()
        shutil.copytree(self.template, self.root, symlinks=True, dirs_exist_ok=True)
        undo(self.root, undone)
        return self.trial(name, undone, draws)

    def look_on(self, undone: tuple[str, ...]) -> dict[str, Any]:
        """Run stages undisturbed, once; return how many seconds that and each stage took, and how many bytes it wrote.

        It has to end as the template did: that is the trial of the trials.
        """
        scene = " ".join(undone)
        if scene not in self.calm:
            trial = self.prepared("undisturbed", undone, random.Random(0))
            before, began = used(self.root), time.monotonic()
            with trial.flow() as flow:
                status = flow.wait()
            seconds, written = time.monotonic() - began, used(self.root) - before
            wrong = [f"it ended with {status}"] if status else self.faults_of(trial)
            if wrong:
                raise RuntimeError(f"{scene} undisturbed: {wrong}; kept in {self.keep(trial)}")
            lasting = {name: last - first for name, (first, last) in flow.seen.items()}
            self.calm[scene] = {"seconds": seconds, "written": written, "lasting": lasting}
            (self.folder / "calm.json").write_text(json.dumps(self.calm))
        return self.calm[scene]

    @contextmanager
    def mlflow(self, trial: Trial) -> Iterator[MLflow]:
        """Let the trial's flow talk to an MLflow server, which takes in artefacts too."""
        with sqlite3.connect(self.root / "mlflow.db") as database:
            database.execute("UPDATE experiments SET artifact_location = 'mlflow-artifacts:/'")
        server = MLflow(self.root)
        server.start()
        trial.environment["MLFLOW_TRACKING_URI"] = server.url
        try:
            yield server
        finally:
            server.kill()

    def carry_out(self, seed: int, fault: str) -> tuple[str, float]:
        """Carry out one trial; return its account and the seconds lost.

        Raises `Unrecovered`, keeping the folder, and `WithoutEffect` where all is well but nothing had been disturbed.
        """
        draws = random.Random(f"{fault} {seed}")
        scenes = [scene for scene in SCENES if fault != "damaged checkpoint" or scene[0].startswith("train@")]
        undone = draws.choice(scenes)
        calm = self.look_on(undone)
        trial = self.prepared(f"{fault} {seed}", undone, draws)
        trial.lasting, trial.written = calm["lasting"], calm["written"]
        began = time.monotonic()
        with trial.servers:
            try:
                FAULTS[fault](trial, self)
                wrong = trial.start_again()
                lost = max(0.0, time.monotonic() - began - calm["seconds"])
                wrong += self.faults_of(trial)
            except Unrecovered as error:
                wrong = [str(error)]
        processes.bury()
        if wrong:
            kept = self.keep(trial)
            raise Unrecovered("\n    ".join([trial.account, *wrong, f"kept in {kept}"]))
        if not trial.disturbed:
            raise WithoutEffect(trial.account)
        return trial.account, lost

    def faults_of(self, trial: Trial) -> list[str]:
        """Return what is not as after the undisturbed run."""
        store = self.root / "mlflow.db"
        wrong = trial.left_over(store, self.prefect.url) + evidence.untracked_members(self.root, store)
        try:
            found = evidence.results(self.root)
        except (OSError, ValueError, KeyError) as error:
            return [*wrong, f"the results cannot be read: {error!r}"]
        return wrong + evidence.differences(found, self.expected)

    def keep(self, trial: Trial) -> Path:
        """Keep the checkout and the logs of a trial, and end what still runs in it."""
        for process in processes.alive(trial.name):
            processes.send(process, signal.SIGKILL)
        kept = self.folder / "kept" / trial.name.replace(" ", "-")
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self.root.parent, kept, symlinks=True)
        return kept


def used(folder: Path) -> int:
    """Return the bytes that files take up on a disk of pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())
