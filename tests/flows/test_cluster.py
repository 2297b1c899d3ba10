"""What needs no cluster: checks before the first stage is sent, the exchange of the lock, a node's program."""

import io
import tarfile
from pathlib import Path

import pytest
import yaml

from flows.cluster.connection import connected, gpu_share
from flows.cluster.execution import AWAY, ClusterExecution
from flows.cluster.handover import check_tracking, prepare, usable_remote
from flows.cluster.lock import read_lock, record_entry
from flows.cluster.node import Job, configure, leased_clone
from flows.cluster.order import Order
from flows.cluster.surroundings import differences, missing, surroundings
from flows.devices.slots import Pool
from flows.planning.graph import read_graph
from flows.stages.attempts import Patience
from flows.stages.command import stage_environment
from flows.stages.outcomes import FAILED
from flows.stages.process import Processes
from pipeline.errors import ChorusError
from pipeline.params import Compute
from pipeline.project import Project
from tests.stub_checkout import MLFLOW, call


@pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="needs Python 3.11.4")
def test_what_is_handed_over(with_remote: Path, tmp_path: Path) -> None:
    (with_remote / "notes.txt").write_text("no stage reads this")
    handover = prepare(with_remote)
    assert handover.commit == call(with_remote, "git", "rev-parse", "HEAD").strip()
    assert handover.remote[0] == "there"
    assert handover.remote[1]["url"] == str(tmp_path / "remote")
    assert handover.at_home == {}
    with tarfile.open(fileobj=io.BytesIO(handover.cargo)) as cargo:
        cargo.extractall(tmp_path / "cargo", filter="data")
    assert (tmp_path / "cargo" / "program" / "flows" / "cluster" / "node.py").exists()
    listed = call(tmp_path / "cargo" / "repository", "git", "ls-tree", "--name-only", handover.commit)
    assert "work.py" in listed.split()


def test_stages_that_stay_at_home(with_remote: Path) -> None:
    text = (with_remote / "dvc.yaml").read_text()
    text = text.replace("outs: [registered.txt]", "outs: [{registered.txt: {cache: false}}]")
    (with_remote / "dvc.yaml").write_text(text)
    call(with_remote, "git", "rm", "-q", "--cached", "source.txt")
    call(with_remote, "git", "commit", "-qam", "Images that only this machine has")
    assert prepare(with_remote).at_home == {
        "ingest": "source.txt is not in git",
        "register": "registered.txt is not kept in DVC's cache",
    }


@pytest.mark.parametrize("changed", ["work.py", "params.yaml"])
def test_changed_files_are_refused(with_remote: Path, changed: str) -> None:
    with (with_remote / changed).open("a") as file:
        file.write("\n")
    with pytest.raises(ChorusError, match=rf"last one: {changed}; commit or stash .* without --runner ray"):
        prepare(with_remote)


def test_new_file_in_a_folder_that_a_stage_reads_is_refused(with_remote: Path) -> None:
    text = (with_remote / "dvc.yaml").read_text()
    (with_remote / "dvc.yaml").write_text(text.replace("deps: [source.txt]", "deps: [source.txt, pipeline]"))
    call(with_remote, "git", "commit", "-qam", "Code is a dependency")
    prepare(with_remote)
    (with_remote / "pipeline" / "new.py").write_text("")
    with pytest.raises(ChorusError, match=r"pipeline/new\.py"):
        prepare(with_remote)


def test_no_remote_and_one_that_cannot_serve() -> None:
    with pytest.raises(ChorusError, match="dvc remote add --default"):
        usable_remote({"core": {}, "remote": {}})
    with pytest.raises(ChorusError, match="over http"):
        usable_remote({"core": {"remote": "web"}, "remote": {"web": {"url": "https://example.org/dvc"}}})


@pytest.mark.parametrize("address", ["", "sqlite:////tmp/mlflow.db", "/tmp/mlruns", "file:///tmp/mlruns"])
def test_store_of_one_machine_is_refused(address: str) -> None:
    with pytest.raises(ChorusError, match="start `mlflow server`"):
        check_tracking({"MLFLOW_TRACKING_URI": address})
    check_tracking({"MLFLOW_TRACKING_URI": MLFLOW})


def test_no_address_of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ChorusError, match="set RAY_ADDRESS or --ray-address"), connected(None, Compute(), 1, b""):
        pass


def test_share_of_a_gpu() -> None:
    assert gpu_share(Compute(device="cpu"), 1, gpus=8) == 0
    assert gpu_share(Compute(device="auto"), 1, gpus=0) == 0
    assert gpu_share(Compute(device="auto"), 4, gpus=8) == 0.25
    assert gpu_share(Compute(device="cuda"), 1, gpus=0) == 1  # the cluster may grow


def test_surroundings_that_differ_and_lack() -> None:
    here = surroundings()
    assert missing(here) == []
    assert differences(here, here) == []
    there = here | {"torch": "1.0", "dvc": "missing"}
    assert missing(there) == ["dvc"]
    assert differences(here, there)[0] == f"torch {here['torch']} there, 1.0 here"


def test_lock_as_it_goes_out_and_comes_back(done: Path) -> None:
    before = yaml.safe_load(read_lock(done))
    entry = before["stages"]["train@x"]
    entry["outs"][0]["md5"] = "0" * 32
    record_entry(done, "train@x", entry)
    assert yaml.safe_load(read_lock(done)) == before
    (done / "dvc.lock").unlink()
    assert read_lock(done) == ""
    record_entry(done, "train@x", entry)
    assert yaml.safe_load(read_lock(done)) == {"schema": "2.0", "stages": {"train@x": entry}}


def fail(*_: object) -> None:
    raise RuntimeError("the store hiccups")


def test_a_stage_does_not_fail_for_copies_of_its_checkpoints(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("fsspec")
    for name in ("bring", "drop", "_copy"):
        monkeypatch.setattr(f"flows.cluster.checkpoints.Copies.{name}", fail)
    order = Order("ingest", [], "", "", ("there", {}), 1, {}, force=True, checkpoints=str(tmp_path / "kept"))
    assert Job(order, done, tmp_path, Processes()).reproduce("ingest") == 0
    said = capsys.readouterr().out
    assert "cannot bring checkpoints (RuntimeError: the store hiccups); going on" in said
    assert "(RuntimeError: the store hiccups); trying on" in said
    assert "cannot remove the copies of checkpoints" in said


def test_inputs_that_cannot_be_pushed_are_pushed_again(with_remote: Path) -> None:
    handover, graph = prepare(with_remote), read_graph(with_remote)
    project = Project.load(with_remote)
    execution = ClusterExecution(
        with_remote,
        graph,
        Pool([{}]),
        Processes(),
        stage_environment(1),
        cluster=None,
        handover=handover,
        home=Pool([{}]),
        project=project,
        force=True,
        patience=Patience(retries=1),
    )
    config = with_remote / ".dvc" / "config.local"
    config.write_text(config.read_text().replace("url = ", "url = /proc/nowhere"))
    said: list[str] = []
    outcome = execution.run("train@x", [], said.append)
    assert (outcome.what, outcome.attempts, outcome.passing) == (FAILED, 2, AWAY)
    assert f"train@x: {AWAY}; attempt 2 of 2 in 0 s" in said


def test_the_secret_of_the_remote_is_the_nodes_users_alone(done: Path) -> None:
    written = done / ".dvc" / "config.local"
    for _ in range(2):
        configure(done, ("there", {"url": "s3://bucket", "secret_access_key": "told to nobody"}))
        assert "told to nobody" in written.read_text()
        assert written.stat().st_mode & 0o777 == 0o600
        written.chmod(0o644)


def test_clones_are_held_by_one_each(tmp_path: Path) -> None:
    with leased_clone(tmp_path) as one, leased_clone(tmp_path) as other:
        assert one != other
        one.touch()
    with leased_clone(tmp_path) as again:
        assert again == one
