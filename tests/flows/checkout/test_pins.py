"""Warm starts before a run: what the flow settles, commits and says; `pin` itself is tested with the pipeline."""

from pathlib import Path

import pytest

from flows.checkout.exclusive import alone
from flows.checkout.pins import commit_pins, settle_warm_starts
from flows.retrain import main
from pipeline.project import Project
from tests.stub_checkout import call, dvc, order

# Stands where the project has its own package: pins family x to what the file `champion` says.
PIN = """\
import pathlib, sys
print("asked to", *sys.argv[1:])
if sys.argv[1] == "pin":
    champion = pathlib.Path("champion")
    if not champion.exists():
        sys.exit("chorus: there is none")
    pin = '{source: "champion", version: "1", content: "%s"}' % (champion.read_text() * 64)
    params = pathlib.Path("params.yaml")
    lines = params.read_text().splitlines()
    lines = [l.partition("warm_start:")[0] + f"warm_start: {pin}}}" if "warm_start" in l else l for l in lines]
    params.write_text("\\n".join(lines) + "\\n")
"""


@pytest.fixture
def warm(done: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose family x follows the champion, committed, in which everything but x is up to date."""
    text = (done / "params.yaml").read_text()
    (done / "params.yaml").write_text(text.replace("lr: 0.1}", "lr: 0.1, warm_start: champion}"))
    (done / "pipeline" / "__main__.py").write_text(PIN)
    (done / "pipeline" / "__init__.py").touch()
    (done / ".gitignore").write_text((done / ".gitignore").read_text() + "/champion\n")
    call(done, "git", "add", "-A")
    call(done, "git", "commit", "-qm", "Warm")
    monkeypatch.chdir(done)
    return done


def test_a_project_without_warm_starts_is_left_alone(done: Path) -> None:
    project = Project.load(done)
    assert settle_warm_starts(project, pytest.fail) is project
    assert commit_pins(done) is None


def test_a_source_without_weights_ends_the_command_at_once(warm: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capfd.readouterr().err == "asked to pin\nchorus: there is none\n"
    assert order(warm) == []
    assert main(["--plan"]) == 0
    assert "asked to" not in capfd.readouterr().err


def test_a_champion_that_moved_trains_one_family_and_its_pin_is_committed(warm: Path) -> None:
    said: list[str] = []
    (warm / "champion").write_text("a")
    project = settle_warm_starts(Project.load(warm), said.append)
    assert said == ["asked to pin"]
    assert project.params.families["x"].warm_start is not None
    assert project.params.families["x"].warm_start.content == "a" * 64
    assert (commit_pins(warm) or "").endswith("Pin x")
    assert commit_pins(warm) is None
    dvc(warm, "repro", "-q")
    assert {name for name, _ in order(warm)} == {"x"}

    (warm / "champion").write_text("b")
    settle_warm_starts(project, said.append)
    status = dvc(warm, "status")
    assert "train@x" in status
    assert "train@y" not in status
    with (warm / "params.yaml").open("a") as file:
        file.write("# a thought of one's own\n")
    assert commit_pins(warm) is None
    assert call(warm, "git", "status", "--porcelain", "params.yaml").split() == ["M", "params.yaml"]


def test_a_flow_in_the_same_checkout_is_not_disturbed(warm: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with alone(warm, "refuse", print):
        assert main([]) == 2
    assert "asked to pin" not in capfd.readouterr().err
