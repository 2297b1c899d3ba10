"""Seeded faults in the flow of a stub checkout; `make chaos` has all of them over the real pipeline."""

import random
import sys
import threading
from pathlib import Path

import pytest
import yaml

from flows.retrain import main
from tests.chaos.evidence import open_mlflow_runs, open_prefect_runs
from tests.chaos.faults import FAULTS
from tests.chaos.processes import until
from tests.chaos.stand import Stand
from tests.chaos.trial import Trial
from tests.chaos.undoing import undo
from tests.stub_checkout import environment_for


def let_sleep_once(sleep: Path, pid: Path) -> None:
    """Wait until a stub stage sleeps, and let no later one."""
    until(pid.exists, 120)
    sleep.unlink()


@pytest.mark.parametrize(("fault", "seed"), [("power cut", 7), pytest.param("dvc SIGKILL", 6, marks=pytest.mark.slow)])
def test_the_next_start_ends_as_if_nothing_had_been(
    done: Path,
    tmp_path: Path,
    prefect_server: str,
    tracked: str,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    seed: int,
) -> None:
    expected = yaml.safe_load((done / "dvc.lock").read_text())
    commands = {name: entry["cmd"] for name, entry in expected["stages"].items()}
    model = (done / "model-x.txt").read_bytes()
    undo(done, ["train@x"])
    with (done / "params.yaml").open("a") as params:
        params.write("flow: {retries: 1, retry_seconds: 0}\n")
    sleep = done / "log" / "x.sleep"
    sleep.parent.mkdir()
    sleep.touch()
    awake = threading.Thread(target=let_sleep_once, args=(sleep, done / "log" / "x.pid"), daemon=True)
    awake.start()
    environment, lasting = environment_for(prefect_server, tracked), {"train@x": 2.0}
    command = (sys.executable, "-P", "-m", "flows.retrain")
    draws = random.Random(seed)
    trial = Trial(f"{fault} of a stub", done, ("train@x",), commands, draws, environment, lasting, command=command)
    store = Path(tracked.removeprefix("sqlite:///"))
    before = {*open_prefect_runs(prefect_server)}  # other tests', in the same process
    if store.exists():
        before |= {*open_mlflow_runs(store)}
    FAULTS[fault](trial, Stand(tmp_path / "stand"))
    awake.join()
    monkeypatch.chdir(done)
    assert main([]) == 0
    assert yaml.safe_load((done / "dvc.lock").read_text()) == expected
    assert (done / "model-x.txt").read_bytes() == model
    assert {*trial.left_over(store, prefect_server)} <= before
