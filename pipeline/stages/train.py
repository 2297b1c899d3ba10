"""Train one family's members and write their snapshots to `models/members/rung1/FAMILY`."""

import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pipeline
from pipeline.compute import Runtime, set_up
from pipeline.data.dataset import load_split, read_manifest
from pipeline.errors import ChorusError
from pipeline.evaluation.pictures import grid
from pipeline.files import tree_hash, write_json
from pipeline.fusion.samplers import CandidateSampler, to_uint8
from pipeline.models._base import ModelConfig
from pipeline.params import Family
from pipeline.project import Project
from pipeline.tracking import Run, Tracker
from pipeline.training import checkpoints, loop
from pipeline.training.interruption import Interruption
from pipeline.training.loop import Data
from pipeline.training.objectives._base import objective_for
from pipeline.training.state import State
from pipeline.training.streams import Streams
from pipeline.weights import save_snapshot

SCHEMA = 1
REPORT_SECONDS = 5.0
CHECKPOINT_SECONDS = "CHORUS_CHECKPOINT_SECONDS"  # environment: seconds between checkpoints
SHEET = 64  # images of a sample sheet
SHEET_ROWS = 10  # rows of the history between sample sheets


def run(project: Project, family: str) -> None:
    """Train the family's replicas one after another.

    What is done lies in the checkpoint folder until the whole family is: a run that was ended at any moment goes on
    from there. On SIGTERM or Ctrl-C the current step is finished, a checkpoint written, and the process exits.
    """
    recipe = project.params.families[family]
    runtime = set_up(project.params.compute)
    manifest = read_manifest(project.prepared)
    data = load_data(project, recipe, runtime)
    tracker = Tracker(project.root)
    members = [f"r{replica}" for replica in range(recipe.replicas)]
    done: dict[str, Path] = {}
    with Interruption() as interruption:
        for replica, member in enumerate(members):
            key = training_key(project, family, member, str(manifest["hash"]))
            folder = project.checkpoints / family / member / key
            done[member] = folder / "member"
            if (done[member] / "history.json").exists():
                print(f"train {family}/{member}: complete since an earlier run", flush=True)
                continue
            config = model_config(recipe, manifest)
            streams = Streams(project.params.seed, family, replica)
            with tracker.child("member", f"{family}/{member}", key=key) as tracked:
                tracked.params(recipe.model_dump(mode="json"))
                tracked.dataset(manifest)
                job = Job(family, member, recipe, config, runtime, streams, folder, tracked)
                job.train(data, interruption)
                tracked.tag(chorus_member=tree_hash(done[member]))
    deliver(project, family, recipe, done)
    shutil.rmtree(project.checkpoints / family)


def load_data(project: Project, recipe: Family, runtime: Runtime) -> Data:
    """Return the train split on the device; raises `ChorusError` for a conditional family on images without classes."""
    split = load_split(project.prepared, "train")
    images = torch.from_numpy(np.array(split.images)).to(runtime.device)
    if not recipe.conditional:
        return Data(images)
    if split.labels is None:
        raise ChorusError("`conditional: true` needs classes, and these images have none: give each class a sub-folder")
    return Data(images, torch.from_numpy(np.array(split.labels)).to(runtime.device))


def model_config(recipe: Family, manifest: dict[str, Any]) -> ModelConfig:
    """Return what a family's networks are built from: its recipe, and the shape and classes of the images."""
    counts = manifest["class_counts"]["train"] if recipe.conditional else []
    return ModelConfig(
        recipe.architecture,
        manifest["channels"],
        manifest["size"],
        recipe.latent,
        recipe.width,
        sample_noise=bool(recipe.sample_noise),
        class_shares=tuple(count / sum(counts) for count in counts),
        dropout=recipe.dropout,
        spectral_norm=recipe.spectral_norm,
        discriminators=recipe.discriminators,
        sampling_steps=recipe.sampling_steps,
    )


def training_key(project: Project, family: str, member: str, data: str) -> str:
    """Return a hash of all that decides a member's weights: recipe, seed, compute, data and code."""
    recipe = project.params.families[family].model_dump(mode="json", exclude={"replicas"})
    code = Path(pipeline.__file__).parent
    shared = ["compute.py", "params.py", "randomness.py", "data/dataset.py", f"models/{recipe['architecture']}.py"]
    files = sorted([*code.glob("training/**/*.py"), *code.glob("models/_*.py"), *(code / name for name in shared)])
    content = {
        "member": f"{family}/{member}",
        "recipe": recipe,
        "seed": project.params.seed,
        "compute": project.params.compute.model_dump(mode="json"),
        "data": data,
        "code": [hashlib.sha256(file.read_bytes()).hexdigest() for file in files],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def deliver(project: Project, family: str, recipe: Family, done: dict[str, Path]) -> None:
    """Put the finished members in place of whatever `models/members/rung1/FAMILY` held."""
    staging = project.checkpoints / family / "family"
    shutil.rmtree(staging, ignore_errors=True)
    for member, folder in done.items():
        shutil.copytree(folder, staging / member)
    content = {"schema": SCHEMA, "family": family, "members": list(done), "params": recipe.model_dump(mode="json")}
    write_json(staging / "family.json", content)
    target = project.family_folder(family)
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(staging, target)


class Job:
    """One member's training with everything around it: resuming, snapshots, checkpoints, tracking, progress lines."""

    def __init__(
        self,
        family: str,
        member: str,
        recipe: Family,
        config: ModelConfig,
        runtime: Runtime,
        streams: Streams,
        folder: Path,
        tracked: Run,
    ) -> None:
        self.name, self.family, self.member = f"{family}/{member}", family, member
        self.recipe, self.config, self.runtime, self.streams = recipe, config, runtime, streams
        self.checkpoint, self.output = folder / "checkpoint.safetensors", folder / "member"
        self.tracked = tracked
        self.budget = loop.schedule(recipe)[0] * recipe.batch
        self.environment = checkpoints.environment(runtime)
        self.rows: list[dict[str, float]] = []  # not yet tracked

    def train(self, data: Data, interruption: Interruption) -> None:
        """Train to the end, or to the next step after an interruption, which is then raised."""
        interval = float(os.environ.get(CHECKPOINT_SECONDS, "30"))
        state = self.start()
        reported = saved = time.monotonic()
        counted = state.nimg
        for _ in loop.train(data, self.recipe, self.config, self.runtime, self.streams, state):
            if state.row:
                self.rows.append(state.row)
            if state.snapshot:
                self.save_snapshot(state)
            elif state.row and len(state.history) % SHEET_ROWS == 0:
                # Only the average's own statistics change, which the training never reads.
                loop.settle(state, self.recipe, self.runtime, self.streams)
                self.track_sheet(state)
            now = time.monotonic()
            if now - reported >= REPORT_SECONDS:
                self.report(state, (state.nimg - counted) / (now - reported))
                reported, counted = now, state.nimg
            if now - saved >= interval or interruption.signal:
                checkpoints.save_checkpoint(self.checkpoint, state, self.environment)
                saved = time.monotonic()
            if interruption.signal:
                print(f"train {self.name}: stopped at {state.nimg / 1000:g} kimg; run it again to go on", flush=True)
                interruption.end()
        self.tracked.history(self.rows)
        # Written last: it marks the member as complete.
        write_json(self.output / "history.json", state.history)
        self.checkpoint.unlink(missing_ok=True)

    def start(self) -> State:
        """Return the state to go on from: that of a checkpoint where there is a sound one."""
        state = loop.build(self.recipe, self.config, self.runtime, self.streams)
        if not self.checkpoint.exists():
            return state
        try:
            before = checkpoints.restore_checkpoint(self.checkpoint, state)
        except checkpoints.DamagedCheckpoint as error:
            print(f"train {self.name}: the checkpoint is damaged ({error}); starting anew", flush=True)
            self.checkpoint.unlink()
            return loop.build(self.recipe, self.config, self.runtime, self.streams)
        print(f"train {self.name}: going on from {state.nimg / 1000:g} kimg", flush=True)
        if changed := checkpoints.differences(before, self.environment):
            print(f"train {self.name}: the last bits may differ from an unbroken run: {'; '.join(changed)}", flush=True)
        self.tracked.tag(chorus_resumed_at=state.nimg)
        self.rows += state.history
        return state

    def save_snapshot(self, state: State) -> None:
        """Write the averaged generator and, for a GAN, the discriminator."""
        networks = {"generator": state.average}
        if "discriminator" in state.networks:
            networks["discriminator"] = state.networks["discriminator"]
        facts: dict[str, Any] = {"family": self.family, "member": self.member, "nimg": state.nimg}
        objective = objective_for(self.recipe, self.config, self.runtime)
        facts |= {"kind": objective.kind, "loss": objective.loss}
        save_snapshot(self.output / f"{state.nimg:09d}", self.config, networks, **facts)
        self.track_sheet(state)

    def track_sheet(self, state: State) -> None:
        """Track images of the averaged generator, of the same latents each time."""
        sampler = CandidateSampler(state.average, self.runtime.device)
        z = self.streams.normal(SHEET, sampler.latent, purpose="sheet")
        self.tracked.image(grid(to_uint8(sampler.images(z))), f"samples/{state.nimg:09d}.png")

    def report(self, state: State, rate: float) -> None:
        """Print one line of progress and track what is new."""
        left = int((self.budget - state.nimg) / rate)
        losses = _losses(state.history[-1]) if state.history else ""
        print(
            f"train {self.name}  {state.nimg / 1000:.0f}/{self.budget / 1000:.0f} kimg  {rate:,.0f} img/s  {losses}"
            f"left {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}",
            flush=True,
        )
        self.tracked.history(self.rows)
        self.rows = []
        self.tracked.metrics({"img_per_s": rate}, step=state.nimg)


def _losses(row: dict[str, float]) -> str:
    if "loss_g" in row:
        return f"G {row['loss_g']:.2f} D {row['loss_d']:.2f}  "
    return f"loss {row['loss']:.2f}  "
