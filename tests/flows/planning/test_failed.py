"""Trainings that go wrong cost a run the family and not the night, and are tried again later."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from flows.devices.slots import Pool
from flows.planning.failed import failed_members, note_tries, with_second_tries
from flows.planning.graph import family, read_graph, rung
from flows.planning.plan import LEAVE, RUN, plan
from flows.stages.command import stage_environment
from flows.stages.execution import Execution
from flows.stages.outcomes import CLEAN, FAILED, GIVEN_UP, RAN, RESTORED, SKIPPED, Outcome, Result
from flows.stages.process import Processes
from tests.stub_checkout import order

# Stands where the project has its own package: it leaves what the stage would have left, for the stub's stages to read.
GIVE_UP = """\
import pathlib, sys
assert sys.argv[1] == "give-up", sys.argv
_, _, family, option, rung, why = sys.argv
assert option == "--rung" and why.startswith("--why=")
text = why.removeprefix("--why=")
pathlib.Path(f"model-{family}.txt").write_text(f"{family} failed in rung {rung}: {text}")
"""


def roster(root: Path, name: str, *failed: str, number: int = 1) -> None:
    folder = root / "models" / "members" / f"rung{number}" / name
    folder.mkdir(parents=True)
    (folder / "family.json").write_text(json.dumps({"members": ["r0"], "failed": failed}))


def test_the_rung_and_family_of_a_stage() -> None:
    assert (family("advance@later1-a-b"), rung("advance@later1-a-b")) == ("a-b", 3)
    assert (family("train@later0-x"), rung("train@mlp")) == ("later0-x", 1)


@pytest.mark.parametrize(("code", "word", "below"), [(1, GIVEN_UP, RAN), (74, FAILED, SKIPPED)])
def test_a_crashed_training_is_given_up_and_a_full_disk_is_not(
    fresh: Path, run: Callable[..., dict[str, Outcome]], code: int, word: str, below: str
) -> None:
    (fresh / "work.py").write_text(
        f"import sys\nif sys.argv[1] == 'x': print('what happened'); sys.exit({code})\n"
        + (fresh / "work.py").read_text()
    )
    (fresh / "pipeline" / "__main__.py").write_text(GIVE_UP)
    (fresh / "pipeline" / "__init__.py").touch()
    outcomes = run(fresh)
    assert {name: outcome.what for name, outcome in outcomes.items()} == {
        "ingest": RAN,
        "train@x": word,
        "train@y": RAN,
        "register": below,
    }
    if word == FAILED:
        return
    result = Result(tuple(outcomes.values()))
    assert not result.failed
    assert "train@x was given up, the run went on without:\n    " in result.message
    assert "x failed in rung 1: what happened" in (fresh / "registered.txt").read_text()
    assert "train@x" not in yaml.safe_load((fresh / "dvc.lock").read_text())["stages"]
    assert read_graph(fresh).stages["train@x"].reasons  # so the next run tries it


def test_members_that_failed_are_tried_again_when_it_is_time(done: Path) -> None:
    roster(done, "x", "r1")
    roster(done, "y")
    graph = read_graph(done)
    assert failed_members(done, "train@x") == ["r1"]
    assert failed_members(done, "train@y") == failed_members(done, "advance@later0-x") == []

    again = with_second_tries(graph, done, hours=12)
    whats = {step.stage: (step.what, step.why) for step in plan(again, again.select(()))}
    assert whats["train@x"] == (RUN, "tried again, as these failed: r1")
    assert whats["train@y"] == (LEAVE, "")

    note_tries(done, ["ingest", "train@x", "train@y"])
    now = datetime.now(UTC)
    assert not any(stage.reasons for stage in with_second_tries(graph, done, hours=12).stages.values())
    assert with_second_tries(graph, done, 12, now + timedelta(hours=13)).stages["train@x"].again
    assert not with_second_tries(graph, done, None, now + timedelta(hours=13)).stages["train@x"].again

    roster(done, "z", "r0", number=2)
    assert failed_members(done, "advance@later0-z") == ["r0"]
    (done / "models" / "members" / "rung1" / "x" / "family.json").write_text("{")
    assert failed_members(done, "train@x") == []


def test_a_second_try_computes_although_nothing_changed(done: Path) -> None:
    roster(done, "x", "r1")
    graph = with_second_tries(read_graph(done), done, hours=0)
    execution = Execution(done, graph, Pool([{}]), Processes(), stage_environment(1))
    assert execution.run("train@x", [], lambda _: None).what == RAN
    assert execution.run("train@y", [], lambda _: None).what == CLEAN
    assert {name for name, _ in order(done)} == {"x"}


def test_a_second_try_that_crashes_leaves_the_result_of_the_first(done: Path) -> None:
    roster(done, "x", "r1")
    before = (done / "model-x.txt").read_bytes(), (done / "dvc.lock").read_bytes()
    (done / "work.py").write_text("import sys; sys.exit('what happened')")
    graph = with_second_tries(read_graph(done), done, hours=0)
    execution = Execution(done, graph, Pool([{}]), Processes(), stage_environment(1))
    outcome = execution.run("train@x", [], lambda _: None)
    assert (outcome.what, outcome.succeeded) == (RESTORED, True)
    assert "what happened" in outcome.message
    assert ((done / "model-x.txt").read_bytes(), (done / "dvc.lock").read_bytes()) == before
