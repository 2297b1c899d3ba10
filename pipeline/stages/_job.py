"""One unit of training with everything around it: resuming, snapshots, checkpoints, tracking, progress lines."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.compute import Runtime
from pipeline.errors import ChorusError
from pipeline.evaluation.pictures import grid
from pipeline.files import write_json
from pipeline.fusion.samplers import CandidateSampler, to_uint8
from pipeline.models._base import ModelConfig
from pipeline.params import Family
from pipeline.progress import Progress
from pipeline.stages._failures import FILE, Failed, write_failure
from pipeline.tracking import Run
from pipeline.training import checkpoints, health, loop, warm
from pipeline.training.accumulation import SMALLEST, is_out_of_memory
from pipeline.training.fused import objective_of
from pipeline.training.handover import STATE, continue_from, save_handover
from pipeline.training.interruption import Interruption
from pipeline.training.loop import Data
from pipeline.training.schemes.cascade import take_over
from pipeline.training.state import State, rows_of
from pipeline.training.streams import Streams
from pipeline.weights import load_generator, save_profiles, save_snapshot

REPORT_SECONDS = 5.0
CHECKPOINT_SECONDS = "CHORUS_CHECKPOINT_SECONDS"  # environment: seconds between checkpoints
SHEET = 64  # images of a sample sheet
SHEET_ROWS = 10  # rows of the history between sample sheets


@dataclass(frozen=True)
class Unit:
    """Members of one family that train together, in one state and along one course.

    members: their names, in the order in which the objective tells them apart. streams: the random numbers of what they
    share. folder: where a run that was ended goes on from; nothing declares it. Its name is a hash of all that decides
    the weights. ancestor: the state that they go on from (None: they start), which had seen `start` images. hands_over:
    whether a later rung goes on from their end. refined: the snapshot whose images a member of a cascade refines.
    initial: weights to start from in place of drawn ones (None: there are none).
    """

    family: str
    members: tuple[str, ...]
    recipe: Family
    config: ModelConfig
    streams: Streams
    data: Data
    folder: Path
    ancestor: Path | None = None
    start: int = 0
    hands_over: bool = False
    refined: Path | None = None
    initial: warm.Weights | None = None

    @property
    def name(self) -> str:
        """FAMILY/MEMBER, or FAMILY/FIRST..LAST."""
        return f"{self.family}/{span(self.members)}"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    @property
    def healthy(self) -> Path:
        """Checkpoint of the last examination that found nothing."""
        return self.folder / "healthy.safetensors"

    @property
    def complete(self) -> bool:
        """Whether it was trained to its end, or until it failed for good."""
        needed = ("history.json", f"{self.end:09d}/config.json")
        return self.failed or all((self.output(member) / name).exists() for member in self.members for name in needed)

    @property
    def end(self) -> int:
        """How many images it has seen at its end."""
        return loop.schedule(self.recipe, self.start)[0] * self.recipe.batch

    @property
    def failed(self) -> bool:
        """Whether its members have failed for good: all of them or none, as they train together."""
        return all((self.output(member) / FILE).exists() for member in self.members)

    def output(self, member: str) -> Path:
        """Folder of what becomes of a member."""
        return self.folder / member

    def last_snapshot(self) -> Path:
        """Folder of the weights of a single complete member at the end of its training."""
        (member,) = self.members
        return max(self.output(member).glob("*/config.json")).parent


def span(members: Sequence[str]) -> str:
    """Return one name for members that follow one another: `r0`, or `r0..r3`."""
    return members[0] if len(members) == 1 else f"{members[0]}..{members[-1]}"


class Job:
    """The training of one unit; `tracked` has the open run of each of its members."""

    def __init__(self, unit: Unit, runtime: Runtime, tracked: Sequence[Run]) -> None:
        self.unit, self.runtime, self.tracked = unit, runtime, tracked
        self.objective = objective_of(unit.recipe, unit.config, runtime, unit.streams.replicas)
        self.environment = checkpoints.environment(runtime)
        self.rows: list[dict[str, float]] = []  # not yet tracked

    def train(self, interruption: Interruption) -> None:
        """Train to the end, or to the next step after an interruption, which is then raised.

        A training that is found unhealthy goes back twice; raises `Failed` the third time. One that runs out of memory
        goes on in smaller parts.
        """
        state = self.start()
        while True:
            try:
                self.go_on(state, interruption)
            except health.Unhealthy as fault:
                state = self.go_back(state, fault)
                continue
            except Exception as error:
                if not is_out_of_memory(error) or self.smaller(state) is None:
                    raise
            else:
                return self.complete(state)
            # Outside of the handler: the error holds on to what the step had allocated.
            state = self.go_on_in_parts(state)

    def smaller(self, state: State) -> int | None:
        """Return half the images that are computed at once now; None where that is too few."""
        half = -(-(state.micro or self.unit.recipe.batch) // 2)
        return half if half >= SMALLEST and half != state.micro else None

    def go_on_in_parts(self, state: State) -> State:
        """Return the state of the last checkpoint, or the start, with batches computed in parts of half the size.

        Where in a step memory ran out is unknown, so nothing of that step may stay.
        """
        unit, micro = self.unit, self.smaller(state)
        for optimizer in state.optimizers.values():
            optimizer.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            checkpoints.restore_checkpoint(unit.checkpoint, state)
        except checkpoints.DamagedCheckpoint:  # or none was written yet
            state = self.build()
        state.micro = micro
        checkpoints.save_checkpoint(unit.checkpoint, state, self.environment)
        self.rows = [row for row in self.rows if row["nimg"] <= state.nimg]
        print(
            f"train {unit.name}: out of memory; back to {state.nimg / 1000:g} kimg, with batches of "
            f"{unit.recipe.batch} images in parts of {micro} and their gradients added up",
            flush=True,
        )
        for run in self.tracked:
            run.tag(chorus_micro=micro)
        return state

    def go_on(self, state: State, interruption: Interruption) -> None:
        """Train from where `state` is to the end; raises `Unhealthy` where it cannot."""
        unit = self.unit
        interval = float(os.environ.get(CHECKPOINT_SECONDS, "30"))
        reported = saved = time.monotonic()
        counted = state.nimg
        for _ in loop.train(unit.data, unit.recipe, unit.config, self.runtime, unit.streams, state, unit.start):
            if state.row:
                self.rows.append(state.row)
            if state.snapshot:
                self.save_snapshots(state)
            elif state.row and len(state.history) % SHEET_ROWS == 0:
                # Only the average's own statistics change, which the training never reads.
                loop.settle(state, unit.recipe, self.runtime, unit.streams)
                self.track_sheets(state)
            if state.healthy:
                checkpoints.save_checkpoint(unit.healthy, state, self.environment)
            now = time.monotonic()
            if now - reported >= REPORT_SECONDS:
                self.report(state, (state.nimg - counted) / (now - reported))
                reported, counted = now, state.nimg
            if now - saved >= interval or interruption.signal:
                checkpoints.save_checkpoint(unit.checkpoint, state, self.environment)
                saved = time.monotonic()
            if interruption.signal:
                print(f"train {unit.name}: stopped at {state.nimg / 1000:g} kimg; run it again to go on", flush=True)
                interruption.end()

    def go_back(self, state: State, fault: health.Unhealthy) -> State:
        """Return the last healthy state, or the start, with halved learning rates; raises `Failed` the third time.

        All members of the unit go back together, for they share one state. The random draws are those of before: each
        depends on the images seen alone, so a run that is ended here goes on to the same bits.
        """
        unit = self.unit
        incidents = [*state.incidents, {"nimg": fault.nimg, "reason": fault.reason}]
        if len(incidents) > health.ROLLBACKS:
            self.fail(fault, incidents)
        back = self.healthy_state()
        back.set_incidents(incidents)
        back.micro = state.micro
        checkpoints.save_checkpoint(unit.checkpoint, back, self.environment)
        self.rows = [row for row in self.rows if row["nimg"] <= back.nimg]
        print(
            f"train {unit.name}: {fault.reason} after {fault.nimg / 1000:g} kimg; back to {back.nimg / 1000:g} kimg "
            f"with half the learning rate ({len(incidents)} of {health.ROLLBACKS} times)",
            flush=True,
        )
        for run in self.tracked:
            run.tag(chorus_incidents=incidents)
        return back

    def healthy_state(self) -> State:
        """Return the state of the last examination that found nothing, or the start where none did."""
        state = self.build()
        if not self.unit.healthy.exists():
            return state
        try:
            checkpoints.restore_checkpoint(self.unit.healthy, state)
        except checkpoints.DamagedCheckpoint as error:
            print(f"train {self.unit.name}: the healthy checkpoint is damaged ({error})", flush=True)
            return self.build()
        return state

    def fail(self, fault: health.Unhealthy, incidents: list[dict[str, Any]]) -> NoReturn:
        """Write and track why the members failed, and raise `Failed`."""
        self.track_rows()
        for member, run in zip(self.unit.members, self.tracked, strict=True):
            write_failure(self.unit.output(member), fault.reason, fault.nimg, incidents)
            run.tag(chorus_failure=fault.reason, chorus_incidents=incidents)
            run.file(self.unit.output(member) / FILE)
        self.drop_checkpoints()
        # The fault's own message names a family's key; a sibling, a part or a student has none of that name.
        print(
            f"train {self.unit.name}: failed for good: {fault.reason} after {fault.nimg / 1000:g} kimg; lower its "
            "learning rate, choose another loss or regularisers, or set compute.precision to fp32",
            flush=True,
        )
        raise Failed(fault.reason)

    def drop_checkpoints(self) -> None:
        """Remove what only an unfinished training needs."""
        self.unit.checkpoint.unlink(missing_ok=True)
        self.unit.healthy.unlink(missing_ok=True)

    def start(self) -> State:
        """Return the state to go on from: that of a checkpoint where there is a sound one."""
        state = self.build()
        if not self.unit.checkpoint.exists():
            return state
        name = self.unit.name
        try:
            before = checkpoints.restore_checkpoint(self.unit.checkpoint, state)
        except checkpoints.DamagedCheckpoint as error:
            print(f"train {name}: the checkpoint is damaged ({error}); starting anew", flush=True)
            self.drop_checkpoints()
            return self.build()
        print(f"train {name}: going on from {state.nimg / 1000:g} kimg", flush=True)
        if changed := checkpoints.differences(before, self.environment):
            print(f"train {name}: the last bits may differ from an unbroken run: {'; '.join(changed)}", flush=True)
        for run in self.tracked:
            run.tag(chorus_resumed_at=state.nimg)
        self.rows += state.history
        return state

    def build(self) -> State:
        """Return the state that the unit's own training begins with: that of no image seen, or its ancestor's."""
        unit = self.unit
        state = loop.build(unit.recipe, unit.config, self.runtime, unit.streams)
        if unit.ancestor is not None:
            continue_from(unit.ancestor, state)
        elif unit.initial is not None:
            self.report_start(warm.start(state, unit.initial))
        if unit.refined is not None:
            take_over(state, load_generator(unit.refined, self.runtime.device)[0])
        return state

    def report_start(self, accounts: Sequence[warm.Taken]) -> None:
        """Say and track what a warm start took over, and which tensors it left as they were drawn."""
        taken = ", ".join(map(str, accounts))
        left = ", ".join(f"{account.network}/{name}" for account in accounts for name in account.left) or "nothing"
        print(f"train {self.unit.name}: starts from {self.unit.recipe.warm_start}: {taken}; left: {left}", flush=True)
        for run in self.tracked:
            run.tag(chorus_warm=taken, chorus_left=left)

    def complete(self, state: State) -> None:
        """Write the members' histories, whose presence says that they are complete, and drop the checkpoint."""
        self.track_rows()
        for index, member in enumerate(self.unit.members):
            if self.unit.hands_over:
                save_handover(self.unit.output(member) / STATE, state)
            write_json(self.unit.output(member) / "history.json", state.history_of(index))
        self.drop_checkpoints()

    def save_snapshots(self, state: State) -> None:
        """Write each member's averaged generator and, for a GAN, the discriminator; its other averages beside them."""
        profiles = {
            width: [networks["generator"] for networks in self.objective.members(replace(state, average=profile))]
            for width, profile in state.profiles.items()
        }
        for index, (member, networks) in enumerate(zip(self.unit.members, self.objective.members(state), strict=True)):
            facts: dict[str, Any] = {"family": self.unit.family, "member": member, "nimg": state.nimg}
            facts |= {"kind": self.objective.kind, "loss": self.objective.loss}
            folder = self.unit.output(member) / f"{state.nimg:09d}"
            save_snapshot(folder, self.unit.config, networks, **facts)
            if profiles:
                save_profiles(folder, {width: own[index] for width, own in profiles.items()})
        self.track_sheets(state)

    def track_sheets(self, state: State) -> None:
        """Track images of the averaged generators, of the same latents each time.

        Raises `Unhealthy` where they hold what is no number: the step before may have broken the weights, which its own
        losses do not tell.
        """
        for run, networks in zip(self.tracked, self.objective.members(state), strict=True):
            try:
                picture = sheet(networks["generator"], self.unit.streams, self.runtime.device)
            except ChorusError:  # there is no other reason
                raise health.Unhealthy(self.unit.streams, state.nimg, health.NO_NUMBERS) from None
            run.image(picture, f"samples/{state.nimg:09d}.png")

    def report(self, state: State, rate: float) -> None:
        """Print one line of progress and track what is new; `rate`: images each member sees in a second."""
        print(
            Progress(
                f"train {self.unit.name}",
                state.nimg / 1000,
                self.unit.end / 1000,
                "kimg",
                rate,
                "img",
                left=int((self.unit.end - state.nimg) / rate),
                note=_losses(state.history[-1]) if state.history else "",
            ),
            flush=True,
        )
        self.track_rows()
        for run in self.tracked:
            run.metrics({"img_per_s": rate}, step=state.nimg)

    def track_rows(self) -> None:
        """Track the rows of the history that are new, each member's in its run."""
        for index, run in enumerate(self.tracked):
            run.history(rows_of(self.rows, index))
        self.rows = []


def sheet(generator: nn.Module, streams: Streams, device: torch.device | str = "cpu") -> NDArray[np.uint8]:
    """Return a picture of the generator's images, those of the same latents and classes each time."""
    sampler = CandidateSampler(generator, device)
    z = streams.normal(SHEET, sampler.latent, purpose="sheet")
    return grid(to_uint8(sampler.images(z, streams.labels(SHEET, sampler.shares, purpose="sheet-labels"))))


def _losses(row: dict[str, float]) -> str:
    """The losses of one row, averaged over the members that have their own, as part of a progress line."""
    sums: dict[str, list[float]] = {}
    for column, value in row.items():
        sums.setdefault(column.partition("@")[0], []).append(value)
    means = {name: sum(values) / len(values) for name, values in sums.items()}
    if "loss_g" in means:
        return f"G {means['loss_g']:.2f} D {means['loss_d']:.2f}"
    return f"loss {means['loss']:.2f}"
