"""The check of the registry that gets ready before anybody knows whether it is wanted."""

import os
from pathlib import Path

from flows.stages.command import on_cue, verify_on_cue
from flows.stages.outcomes import FAILED, HELD
from flows.stages.process import Processes
from tests.stub_checkout import gone

READY = "import pathlib, sys; pathlib.Path('ready').touch(); "


def checkout(root: Path, code: str) -> Path:
    """A folder in which `python -m pipeline` runs this code."""
    (root / "pipeline").mkdir()
    (root / "pipeline" / "__init__.py").touch()
    (root / "pipeline" / "__main__.py").write_text(READY + code)
    return root


def test_a_check_begins_when_it_is_asked_to(tmp_path: Path) -> None:
    root = checkout(tmp_path, "sys.stdin.readline(); print(*sys.argv[1:])")
    said: list[str] = []
    with on_cue(root, os.environ) as check:
        outcome = verify_on_cue(Processes(), check, said.append)
    assert (outcome.what, said) == (HELD, ["verify --on-cue"])


def test_one_that_is_not_wanted_ends(tmp_path: Path) -> None:
    root = checkout(tmp_path, "sys.stdin.readline(); pathlib.Path('checked').touch()")
    with on_cue(root, os.environ) as check:
        while not (root / "ready").exists():
            assert check.poll() is None
    assert gone(check.pid)
    assert not (root / "checked").exists()


def test_one_that_cannot_get_ready_says_why(tmp_path: Path) -> None:
    root = checkout(tmp_path, "sys.exit('chorus: something is missing')")
    with on_cue(root, os.environ) as check:
        check.wait()
        outcome = verify_on_cue(Processes(), check, lambda _: None)
    assert (outcome.what, outcome.message) == (FAILED, "chorus: something is missing")
