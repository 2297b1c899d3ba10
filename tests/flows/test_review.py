"""The reviewer's commands on a real registry: moves, refusals, two moves at once, and what they leave to read."""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from flows import review
from pipeline import moves, registry
from pipeline.errors import ChorusError, PassingError
from pipeline.project import Project
from pipeline.stages._verdict import promote_if_passed
from pipeline.tracking import PROCESS, Tracker
from tests.factories_fused import PARAMS, write_fused
from tests.test_registry import register

ROOT = Path(__file__).parents[2]
SIGNED = ("--by", "Ann", "--why", "nearer [by] every judge")
HOLD = """
import sys, time
from pathlib import Path
from pipeline import moves, registry
from pipeline.tracking import Tracker
def hold(*arguments):
    Path("held").touch()
    time.sleep(120)
registry.fetch_whole = hold
moves.promote(Tracker(Path.cwd()), "chorus", "2", by="Bo", why="x")
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with three versions of one content, of which the last passed its gate."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        root = tmp_path_factory.mktemp("template") / "project"
        root.mkdir()
        (root / "params.yaml").write_text(PARAMS)
        write_fused(root / "models" / "fused")
        client = (register(root), Tracker(root).client)[1]
        first = client.get_model_version("chorus", "1")
        for gate in ("failed", "passed"):
            tags = {**first.tags, "chorus.gate": gate, "chorus.gate.smoke": f"{gate}: x", "gate.fd16_selfsup": "1.5"}
            client.create_model_version("chorus", first.source, run_id=first.run_id, tags=tags)
        return root


@pytest.fixture
def root(template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That project as the working folder, as it was before any move."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(template)
    client = Tracker(template).client
    for alias in (registry.CHAMPION, registry.PREVIOUS):
        client.delete_registered_model_alias("chorus", alias)
    for version in client.search_model_versions("name = 'chorus'"):
        for name in version.tags:
            if name.startswith(moves.MOVE):
                client.delete_model_version_tag("chorus", version.version, name)
    return template


def state(root: Path) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Return everything that a move may change."""
    tracker = Tracker(root)
    return registry.aliases(tracker, "chorus"), [dict(one.tags) for one in registry.versions(tracker, "chorus")]


def pointed(root: Path) -> tuple[str | None, str | None]:
    """Return the numbers of the champion and of the one before."""
    aliases = registry.aliases(Tracker(root), "chorus")
    return aliases.get("champion"), aliases.get("previous-champion")


def test_promotes_keeps_the_previous_one_and_goes_back(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert review.main(["promote", "1", *SIGNED]) == 0
    assert pointed(root) == ("1", None)
    assert "version 1 is the champion now; there was none before" in capsys.readouterr().out
    assert review.main(["promote", "2", *SIGNED]) == 0
    assert pointed(root) == ("2", "1")
    assert "its gate: failed" in capsys.readouterr().out
    assert review.main(["rollback", "--by", "Bo", "--why", "too dark", "--json"]) == 0
    assert pointed(root) == ("1", "2")
    made = json.loads(capsys.readouterr().out)
    assert [made[key] for key in ("move", "by", "why", "before", "after")] == ["rollback", "Bo", "too dark", "2", "1"]
    tracker = Tracker(root)
    told = [moves.moves_of(registry.tags_of(tracker, "chorus", number)) for number in "123"]
    assert [[(one.move, one.before, one.after) for one in own] for own in told] == [
        [("promote", None, "1"), ("promote", "1", "2"), ("rollback", "2", "1")],
        [("promote", "1", "2"), ("rollback", "2", "1")],
        [],
    ]
    assert review.main(["rollback", *SIGNED]) == 0
    assert pointed(root) == ("2", "1")


def test_lists_and_shows_for_people_and_scripts(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    review.main(["promote", "candidate", *SIGNED])
    review.main(["promote", "3", *SIGNED])
    capsys.readouterr()
    assert review.main(["list"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed[2:]] == ["3", "2", "1"]
    assert "champion" in printed[2]
    assert "candidate, previous-champion" in printed[4]
    assert review.main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["version"], row["gate"], row["distances"]) for row in rows] == [
        ("3", "passed", {"fd16_selfsup": 1.5}),
        ("2", "failed", {"fd16_selfsup": 1.5}),
        ("1", None, {}),
    ]
    assert review.main(["show", "3"]) == 0
    page = capsys.readouterr().out
    assert "nearer [by] every judge" in page
    assert "passed: x" in page
    assert review.main(["show", "champion", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {**rows[0]}


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["promote", "9", *SIGNED], "'chorus' has no version 9; it has: 3, 2, 1"),
        (["promote", "best", *SIGNED], "'chorus' has no alias 'best'; it has: candidate"),
        (["promote", "1", "--by", "Ann", "--why", " "], "--why has to be one line"),
        (["promote", "1", "--by", "A\nnn", "--why", "x"], "--by has to be one line"),
        (["promote", "1", "--by", "Ann", "--why", "x" * 501], "--why has to be one line"),
        (["rollback", *SIGNED], "no previous champion"),
        (["show", "9"], "'chorus' has no version 9"),
    ],
)
def test_refuses_clearly_and_changes_nothing(
    root: Path, capsys: pytest.CaptureFixture[str], command: list[str], words: str
) -> None:
    before = state(root)
    assert review.main(command) == 2
    assert words in capsys.readouterr().err
    assert state(root) == before


def test_refuses_what_is_the_champion_already(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    review.main(["promote", "2", *SIGNED])
    before = state(root)
    assert review.main(["promote", "2", *SIGNED]) == 2
    assert "version 2 of 'chorus' is the champion already; nothing was changed" in capsys.readouterr().err
    assert state(root) == before


@pytest.mark.parametrize(
    ("file", "words"),
    [("generator.safetensors", "damaged"), ("recipes.py", "altered"), ("MLmodel", "altered")],
)
def test_refuses_a_version_that_is_not_what_was_registered(
    root: Path, capsys: pytest.CaptureFixture[str], file: str, words: str
) -> None:
    path = next((root / "mlartifacts").rglob(file))
    kept, before = path.read_bytes(), state(root)
    path.write_bytes(kept + b"\n")
    try:
        assert review.main(["promote", "2", *SIGNED]) == 2
    finally:
        path.write_bytes(kept)
    assert words in capsys.readouterr().err
    assert state(root) == before
    review.main(["promote", "2", *SIGNED])
    review.main(["promote", "3", *SIGNED])
    before = state(root)
    path.write_bytes(kept + b"\n")
    try:
        assert review.main(["rollback", *SIGNED]) == 2
    finally:
        path.write_bytes(kept)
    assert state(root) == before


def test_a_registry_without_versions_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert review.main(["list"]) == 2
    assert "params.yaml is missing" in capsys.readouterr().err
    (tmp_path / "params.yaml").write_text(PARAMS)
    assert review.main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert review.main(["promote", "1", *SIGNED]) == 2
    assert "none yet, `dvc repro` registers one" in capsys.readouterr().err


def python(*arguments: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, *arguments], env=environment, text=True, stderr=subprocess.PIPE)


def test_a_move_during_another_is_refused_and_a_killed_one_is_no_obstacle(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state(root)
    holder = python("-c", HOLD)
    try:
        deadline = time.monotonic() + 120
        while not (root / "held").exists():
            assert holder.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert review.main(["promote", "3", *SIGNED]) == 2
        assert "another move of 'chorus' is under way" in capsys.readouterr().err
        # From another machine: another folder, and the same registry.
        elsewhere = root.parent / "elsewhere"
        elsewhere.mkdir()
        other = Tracker(root)
        other.root = elsewhere
        (elsewhere / ".chorus").mkdir()
        with pytest.raises(ChorusError, match=r"another move is under way \(by Bo, process .*\); nothing was changed"):
            moves.promote(other, "chorus", "3", by="Ann", why="x")
        assert state(root) == before
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        (root / "held").unlink(missing_ok=True)
        shutil.rmtree(root.parent / "elsewhere", ignore_errors=True)
    assert review.main(["promote", "3", *SIGNED]) == 0
    assert pointed(root) == ("3", None)
    assert not Tracker(root).client.search_registered_models("name = 'chorus.moving'")


def test_of_two_moves_at_once_each_is_made_whole_or_refused(root: Path) -> None:
    both = [python("-m", "flows.review", "promote", number, *SIGNED) for number in "23"]
    errors = [process.communicate(timeout=200)[1] for process in both]
    statuses = [process.returncode for process in both]
    assert sorted(statuses) in ([0, 0], [0, 2]), errors
    tracker = Tracker(root)
    told = {number: moves.moves_of(registry.tags_of(tracker, "chorus", number)) for number in "23"}
    made = sorted({(one.when, one.before or "", one.after) for own in told.values() for one in own})
    assert len(made) == statuses.count(0)
    assert {after for _, _, after in made} == {n for n, status in zip("23", statuses, strict=True) if status == 0}
    champion, previous = pointed(root)
    chain = {after: before for _, before, after in made}
    assert chain[champion or ""] == (previous or "")
    for error, status in zip(errors, statuses, strict=True):
        assert ("under way" in error and "nothing was changed" in error) == (status == 2)


def test_tags_that_nobody_can_read_are_left_out(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert review.main(["promote", "2", *SIGNED]) == 0
    client = Tracker(root).client
    tags = {"gate.note": "fine", f"{moves.MOVE}1": "{", f"{moves.MOVE}2": "[1]", f"{moves.MOVE}3": '{"move": "x"}'}
    for name, value in tags.items():
        client.set_model_version_tag("chorus", "2", name, value)
    capsys.readouterr()
    try:
        assert review.main(["list"]) == 0
        assert review.main(["show", "2"]) == 0
        capsys.readouterr()
        assert review.main(["show", "2", "--json"]) == 0
    finally:
        for name in tags:
            client.delete_model_version_tag("chorus", "2", name)
    row = json.loads(capsys.readouterr().out)
    assert row["distances"] == {"fd16_selfsup": 1.5}
    assert [move["after"] for move in row["moves"]] == ["2"]


def cut_off(monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException) -> None:
    """Let the n-th alias that is set from now on end in an error."""
    real, calls = MlflowClient.set_registered_model_alias, iter(range(1, 100))

    def set_alias(self: MlflowClient, *arguments: str) -> None:
        if next(calls) == at:
            raise error
        real(self, *arguments)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", set_alias)


def raise_away(*arguments: object) -> None:
    raise MlflowException("connection refused")


def test_rolls_back_from_where_a_kill_has_cut_a_move_off(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in "12":
        assert review.main(["promote", number, *SIGNED]) == 0
    with monkeypatch.context() as patch:
        cut_off(patch, 2, KeyboardInterrupt())
        assert review.main(["promote", "3", *SIGNED]) == 130
    assert pointed(root) == ("2", "2")
    assert review.main(["rollback", *SIGNED]) == 0
    assert pointed(root) == ("1", "2")
    with monkeypatch.context() as patch:
        cut_off(patch, 2, KeyboardInterrupt())
        assert review.main(["rollback", *SIGNED]) == 130
    assert pointed(root) == ("1", "1")
    assert review.main(["rollback", *SIGNED]) == 0
    assert pointed(root) == ("2", "1")


def test_the_first_champion_has_none_to_go_back_to_when_a_move_was_cut_off(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert review.main(["promote", "1", *SIGNED]) == 0
    with monkeypatch.context() as patch:
        cut_off(patch, 2, KeyboardInterrupt())
        assert review.main(["promote", "2", *SIGNED]) == 130
    assert pointed(root) == ("1", "1")
    assert review.main(["rollback", *SIGNED]) == 2
    assert "no previous champion" in capsys.readouterr().err


def test_a_registry_that_goes_away_in_the_middle_of_a_move_is_no_refusal(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert review.main(["promote", "1", *SIGNED]) == 0
    with monkeypatch.context() as patch:
        cut_off(patch, 2, MlflowException("server closed the connection unexpectedly"))
        patch.setattr(MlflowClient, "delete_registered_model", raise_away)
        assert review.main(["promote", "2", *SIGNED]) == 75
    said = capsys.readouterr().err
    assert "the move of 'chorus' to version 2 is written down, but not finished" in said
    assert "flows.review show champion" in said
    assert "nothing was changed" not in said
    # The name that could not be deleted is this process's own, and in nobody's way.
    assert review.main(["promote", "2", *SIGNED]) == 0
    assert pointed(root) == ("2", "1")
    assert not Tracker(root).client.search_registered_models("name = 'chorus.moving'")


def test_an_outage_before_the_move_changes_nothing_and_can_pass(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state(root)
    creation = ("create_registered_model", "get_registered_model")
    for calls in (creation, ("get_model_version_by_alias",), ("get_model_version",)):
        with monkeypatch.context() as patch:
            for call in calls:
                patch.setattr(MlflowClient, call, raise_away)
            assert review.main(["promote", "2", *SIGNED]) == 75
        said = capsys.readouterr().err
        assert said.startswith("chorus: ")
        assert "connection refused" in said
    assert state(root) == before
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert review.main(["list"]) == 75
    assert "does not answer" in capsys.readouterr().err


def test_of_two_that_remove_what_a_kill_left_one_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker, name = Tracker(root), "chorus.moving"
    dead = {PROCESS: f"{platform.node()}:999999999:1.00", "chorus.by": "Bo"}
    other = {PROCESS: "elsewhere:1:1.00", "chorus.by": "Cy"}
    tracker.client.create_registered_model(name, dead)
    before, real = state(root), MlflowClient.create_registered_model

    def created_and_lost(self: MlflowClient, model: str, tags: dict[str, str]) -> None:
        real(self, model, tags)
        self.delete_registered_model(model)
        real(self, model, other)

    monkeypatch.setattr(MlflowClient, "create_registered_model", created_and_lost)
    try:
        with pytest.raises(ChorusError, match=r"another move is under way \(by Cy, .*nothing was changed"):
            moves.promote(tracker, "chorus", "2", by="Ann", why="x")
        assert tracker.client.get_registered_model(name).tags == other
    finally:
        tracker.client.delete_registered_model(name)
    assert state(root) == before


def verdict(champion: str | None, passed: bool = True) -> dict[str, Any]:
    return {"passed": passed, "champion": champion and {"version": champion, "itself": False}}


def test_promotes_by_itself_where_that_is_wanted_and_leaves_what_people_moved(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = Tracker(root)
    versions = {number: registry.Version("chorus", number, "", "") for number in "123"}
    by_hand = Project.load(root)
    (root / "params.yaml").write_text(PARAMS + "gate: {auto_promote: true}\n")
    project = Project.load(root)
    (root / "params.yaml").write_text(PARAMS)
    promote_if_passed(by_hand, tracker, versions["1"], verdict(None))
    promote_if_passed(project, tracker, versions["1"], verdict(None, passed=False))
    assert pointed(root) == (None, None)
    promote_if_passed(project, tracker, versions["1"], verdict(None))
    assert pointed(root) == ("1", None)
    promote_if_passed(project, tracker, versions["2"], verdict(None))
    assert "the champion is version 1 now, not none any more" in capsys.readouterr().out
    promote_if_passed(project, tracker, versions["2"], verdict("1"))
    assert pointed(root) == ("2", "1")
    capsys.readouterr()
    promote_if_passed(project, tracker, versions["2"], verdict("1"))
    assert not capsys.readouterr().out
    moves.rollback(tracker, "chorus", by="Ann", why="too dark")
    promote_if_passed(project, tracker, versions["2"], verdict("1"))
    assert pointed(root) == ("1", "2")


@pytest.mark.parametrize("at", [1, 2])
def test_a_promotion_of_the_gates_own_that_was_cut_off_is_made_again(
    root: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    tracker, version = Tracker(root), registry.Version("chorus", "2", "", "")
    (root / "params.yaml").write_text(PARAMS + "gate: {auto_promote: true}\n")
    project = Project.load(root)
    (root / "params.yaml").write_text(PARAMS)
    moves.promote(tracker, "chorus", "1", by="Ann", why="x")
    for error, raised in ((MlflowException("away"), PassingError), (KeyboardInterrupt(), KeyboardInterrupt)):
        with monkeypatch.context() as patch:
            cut_off(patch, at, error)
            with pytest.raises(raised):
                promote_if_passed(project, tracker, version, verdict("1"))
        assert pointed(root)[0] == "1"
    promote_if_passed(project, tracker, version, verdict("1"))
    assert pointed(root) == ("2", "1")


def test_the_commands_import_no_torch(root: Path) -> None:
    code = "import sys; from flows.review import main; main(['promote', '2', '--by', 'a', '--why', 'b']); "
    done = python("-c", code + "main(['list']); sys.exit('torch' in sys.modules or 'prefect' in sys.modules)")
    _, error = done.communicate(timeout=120)
    assert done.returncode == 0, error
    assert pointed(root) == ("2", None)
