"""The register stage on a real store: idempotent, completed after a kill, checked and repaired."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline import lineage, registry
from pipeline.errors import ChorusError
from pipeline.files import read_json, tree_hash, write_json
from pipeline.project import Project
from pipeline.stages import gate, register, verify
from pipeline.tracking import PIPELINE_RUN, Tracker
from tests.factories import write_prepared
from tests.factories_fused import PARAMS, write_fused, write_judgement, write_project, write_verdict


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was registered once: copied by each test, as making a store takes seconds."""
    root = tmp_path_factory.mktemp("template") / "project"
    root.mkdir()
    write_project(root)
    Tracker(root)
    return root


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with an empty store, before its first registration."""
    monkeypatch.delenv(PIPELINE_RUN, raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "project"
    shutil.copytree(template, root)
    # The store remembers where it lay; artefacts have to go to the copy.
    store = Tracker(root)
    store.client.rename_experiment(store.experiment, "template")
    Tracker(root)
    return Project.load(root)


def python(cwd: Path, *arguments: str, cue: str = "") -> subprocess.CompletedProcess[str]:
    """Run this Python on this code in another folder, with `cue` as its standard input."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, input=cue, capture_output=True, text=True, check=False)


def versions(project: Project) -> list[Any]:
    return list(Tracker(project.root).client.search_model_versions("name = 'chorus'"))


def test_tells_the_race_and_takes_members_from_their_last_rung(project: Project) -> None:
    root = project.root
    race = "budget: {kimg: 8, families: 1}\nracing: {rungs: [{rung: 2, after: 1}], keep: 0.5}\n"
    (root / "params.yaml").write_text(PARAMS + race)
    table = {"schema": 1, "rung": 2, "after": 1, "decided_by": "rfd_selection", "failed": ["gone"], "families": []}
    write_json(root / "evaluation" / "race" / "rung2" / "table.json", table)
    for folder in (root / "models" / "members", root / "evaluation"):
        shutil.copytree(folder / "rung1" / "mlp", folder / "rung2" / "mlp")
    shutil.rmtree(root / "models" / "members" / "rung2" / "mlp" / "r1")
    raced = Project.load(root)
    assert register.members_of(raced) == {
        "mlp/r0": raced.family_folder("mlp", 2) / "r0",
        "mlp/r1": raced.family_folder("mlp", 1) / "r1",
    }
    register.run(raced)
    assert "The race for the budget" in (root / "report" / "report.html").read_text()
    tracker = Tracker(root)
    [parent] = tracker.find(chorus_kind="pipeline")
    assert [file.path for file in tracker.client.list_artifacts(parent.info.run_id, "race/rung2")] == [
        "race/rung2/table.json"
    ]


def test_writes_version_report_registration_and_runs(project: Project) -> None:
    register.run(project)
    tracker = Tracker(project.root)
    said = read_json(project.registration)
    assert list(said) == ["schema", "model", "version", "run_id", "content", "strategy", "shipped", "report"]
    assert (said["model"], said["version"], said["strategy"]) == ("chorus", "1", "weighted")
    version = tracker.client.get_model_version_by_alias("chorus", "candidate")
    assert version.tags["chorus.content"] == said["content"]
    assert version.tags["chorus.strategy"] == "weighted"
    assert version.tags["chorus.gate"] == "passed"
    assert version.tags["chorus.gate.champion"] == "none"
    assert version.tags["chorus.gate.improvement"] == "not applied: no champion"
    assert version.tags["gate.fd16_selfsup"] == "1.5"
    assert version.tags["gate.fd16_selfsup.best_member"] == "2"
    assert version.tags["chorus.data"] == read_json(project.prepared / "manifest.json")["hash"]
    assert version.description == (project.report / "card.md").read_text()
    assert "nearer to real images" in version.description
    assert f"- commit: `{version.tags['chorus.commit']}`" in version.description
    page = (project.root / said["report"]).read_text()
    assert "version 1" in page
    assert "a.png: truncated" in page
    assert "caf\\xe9.png: empty" in page  # a name that is no Unicode

    [parent] = tracker.find(chorus_kind="pipeline")
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["fd16_selfsup/weighted"] == 1.5
    assert parent.inputs.dataset_inputs
    stored = {file.path for file in tracker.client.list_artifacts(parent.info.run_id)}
    assert stored == {
        "report.html",
        "card.md",
        "metrics.json",
        "gate.json",
        "strategies.json",
        "students.json",
        "figures",
        "gate",
    }
    [model_run] = tracker.find(chorus_kind="fused", mlflow_parentRunId=parent.info.run_id)
    assert (model_run.info.run_id, model_run.info.status) == (said["run_id"], "FINISHED")
    with_version = {file.path for file in tracker.client.list_artifacts(said["run_id"])}
    assert with_version == {"card.md", "report.html", "data", "partners"}
    assert f'href="http://127.0.0.1:5000/#/experiments/{tracker.experiment}/runs/{parent.info.run_id}"' in page
    assert 'href="http://127.0.0.1:5000/#/models/chorus/versions/1"' in page


def test_same_content_is_registered_once(project: Project) -> None:
    register.run(project)
    first = read_json(project.registration)
    register.run(project)
    assert read_json(project.registration) == first
    assert len(versions(project)) == 1


def test_a_version_that_is_judged_anew_is_described_anew(project: Project) -> None:
    register.run(project)
    metrics = read_json(project.report / "metrics.json")
    for arm in metrics["arms"]:
        arm["metrics"]["fd16_selfsup"] *= 2
    write_json(project.report / "metrics.json", metrics)
    register.run(project)
    [version] = versions(project)
    assert version.tags["gate.fd16_selfsup"] == "3"
    assert version.tags["gate.fd16_selfsup.best_member"] == "4"


def test_what_is_not_asked_or_judged_any_more_is_told_no_more(project: Project) -> None:
    register.run(project)
    client = Tracker(project.root).client
    for name in ("gate.fd16_gone", "chorus.gate.gone", "mine"):
        client.set_model_version_tag("chorus", "1", name, "x")
    register.run(project)
    [version] = versions(project)
    assert {"mine", "chorus.gate", "chorus.gate.smoke", "gate.fd16_selfsup"} <= set(version.tags)
    assert not {"gate.fd16_gone", "chorus.gate.gone"} & set(version.tags)


def test_a_versions_tags_hold_no_secrets(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2&2")
    verdict = read_json(project.verdict)
    verdict["rules"][0]["why"] = "in a fresh process: hunter2&2"
    write_json(project.verdict, verdict)
    for _ in range(2):  # registered, then described anew
        register.run(project)
        assert registry.tags_of(Tracker(project.root), "chorus", "1")["chorus.gate.smoke"].endswith("process: ***")
    assert "hunter2" not in (project.report / "report.html").read_text() + (project.report / "card.md").read_text()


def test_the_champion_keeps_the_verdict_by_which_it_became_it(project: Project) -> None:
    register.run(project)
    tracker = Tracker(project.root)
    tracker.client.set_registered_model_alias("chorus", "champion", "1")
    for name, value in {"chorus.gate.improvement": "passed: nearer", "gate.fd16_gone": "1"}.items():
        tracker.client.set_model_version_tag("chorus", "1", name, value)
    verdict = read_json(project.verdict)
    itself = {"version": "1", "content": verdict["candidate"]["content"], "itself": True, "problem": None}
    write_json(project.verdict, {**verdict, "passed": False, "champion": itself})
    register.run(project)
    tags = registry.tags_of(tracker, "chorus", "1")
    assert (tags["chorus.gate"], tags["chorus.gate.champion"]) == ("passed", "none")
    assert tags["chorus.gate.improvement"] == "passed: nearer"
    assert "gate.fd16_gone" not in tags


def test_new_content_makes_a_version_and_old_content_finds_its_own(project: Project) -> None:
    register.run(project)
    write_fused(project.chosen, weights=(0.5, 0.5))
    with pytest.raises(ChorusError, match=r"gate\.json tells of another model"):
        register.run(project)
    write_verdict(project.root)
    register.run(project)
    assert read_json(project.registration)["version"] == "2"
    page = project.report / "report.html"
    assert "The prepared images are those of version 1, byte by byte." in page.read_text()
    write_fused(project.chosen)
    write_verdict(project.root)
    write_prepared(project.prepared, n_train=300, classes=("a", "b", "d"), seed=3)
    register.run(project)
    assert read_json(project.registration)["version"] == "1"
    told = page.read_text()
    assert "There are 300 training images; version 2 had 256." in told
    assert "no more than chance explains" in told
    assert "new: d; gone: c." in told
    assert registry.alias_number(Tracker(project.root), "chorus") == "1"
    assert len(versions(project)) == 2


@pytest.mark.parametrize("moment", ["create_model_version", "set_registered_model_alias"])
def test_a_rerun_completes_what_a_kill_left(project: Project, moment: str) -> None:
    script = f"""
import os, signal, sys
from mlflow import MlflowClient
from pathlib import Path
from pipeline.project import Project
from pipeline.stages import gate, register, verify
MlflowClient.{moment} = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
register.run(Project.load(Path(sys.argv[1])))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(project.root)], capture_output=True, text=True, check=False
    )
    assert done.returncode == -9, done.stderr
    assert not project.registration.exists()
    register.run(project)
    assert [version.version for version in versions(project)] == [1]
    assert registry.alias_number(Tracker(project.root), "chorus") == "1"
    statuses = sorted(run.info.status for run in Tracker(project.root).find(chorus_kind="pipeline"))
    assert statuses == ["FINISHED", "KILLED"]


def test_members_that_were_not_trained_now_are_marked_and_linked(project: Project) -> None:
    tracker = Tracker(project.root)
    identity = tree_hash(project.family_folder("mlp") / "r0")
    with tracker.child("member", "mlp/r0", key="training") as trained:
        trained.tag(chorus_member=identity)
    tracker.finish_pipeline()
    register.run(project)
    parent = tracker.find(chorus_kind="pipeline")[0].info.run_id
    children = {run.info.run_name: run for run in tracker.find(chorus_kind="member", mlflow_parentRunId=parent)}
    assert sorted(children) == ["mlp/r0", "mlp/r1"]
    assert {run.data.tags["chorus.reused"] for run in children.values()} == {"true"}
    assert children["mlp/r0"].data.tags["chorus.original"] == trained.id
    assert "chorus.original" not in children["mlp/r1"].data.tags
    reused = children["mlp/r1"]
    assert reused.data.metrics == {"val/rfd_selection": 3.0, "loss_g": 1.0, "loss_d": 2.0}
    assert reused.data.params == {"lr": "0.1"}
    assert reused.inputs.dataset_inputs
    assert [m.step for m in tracker.client.get_metric_history(reused.info.run_id, "loss_g")] == [500, 1000]
    # The original stays what its hash leads to.
    assert [run.info.run_id for run in tracker.find(chorus_member=identity)] == [trained.id]


def test_members_trained_in_this_pipeline_run_are_not_marked(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker(project.root)
    parent = tracker.start_pipeline("flow")
    monkeypatch.setenv(PIPELINE_RUN, parent.id)
    with tracker.child("member", "mlp/r0", key="training"):
        pass
    register.run(project)
    verify.run(project)
    names = sorted(run.info.run_name for run in tracker.find(chorus_kind="member", mlflow_parentRunId=parent.id))
    assert names == ["mlp/r0", "mlp/r1"]
    assert tracker.client.get_run(parent.id).info.status == "RUNNING"


def test_verify_is_content_with_what_is_there(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    verify.run(project)
    assert "nothing is registered yet" in capsys.readouterr().out
    register.run(project)
    before = tree_hash(project.root / "report"), read_json(project.registration)
    tracker = Tracker(project.root)
    tracker.client.delete_registered_model_alias("chorus", "candidate")
    runs = len(tracker.find())
    verify.run(project)
    assert registry.alias_number(tracker, "chorus") == "1"
    first = tracker.client.get_model_version("chorus", "1")
    other = tracker.client.create_model_version("chorus", first.source, run_id=first.run_id)  # by another clone
    tracker.client.set_registered_model_alias("chorus", "candidate", other.version)
    verify.run(project)
    assert registry.alias_number(tracker, "chorus") == "2"
    tracker.client.delete_model_version("chorus", other.version)
    assert (tree_hash(project.root / "report"), read_json(project.registration)) == before
    assert len(tracker.find()) == runs
    write_fused(project.chosen, weights=(0.5, 0.5))
    verify.run(project)
    assert "has changed" in capsys.readouterr().out
    assert len(versions(project)) == 1


def test_verify_gates_again_where_the_champion_has_moved(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register.run(project)
    write_fused(project.chosen, weights=(0.5, 0.5))
    write_verdict(project.root)
    register.run(project)
    Tracker(project.root).client.set_registered_model_alias("chorus", "champion", "1")
    # What the gate measures has tests of its own.
    monkeypatch.setattr(gate, "run", lambda project: write_verdict(project.root, champion="1"))
    verify.run(project)
    assert "the champion is version 1, and the gate compared with none: it compares again" in capsys.readouterr().out
    assert registry.tags_of(Tracker(project.root), "chorus", "2")["chorus.gate.champion"] == "1"
    assert "cannot be measured: it is lost" in (project.report / "report.html").read_text()
    verify.run(project)
    assert "the registry holds chorus version 2" in capsys.readouterr().out


def test_verify_registers_again_where_artefacts_were_lost(project: Project) -> None:
    register.run(project)
    shutil.rmtree(project.root / "mlartifacts")
    verify.run(project)
    assert read_json(project.registration)["version"] == "2"
    assert registry.alias_number(Tracker(project.root), "chorus") == "2"


def test_a_lost_database_is_filled_again_and_dvc_stays_clean(project: Project) -> None:
    root = project.root

    def dvc(*arguments: str) -> str:
        done = python(root, "-m", "dvc", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    (root / "dvc.yaml").write_text(
        "stages:\n  register:\n    cmd: python -m pipeline register\n    deps: [models/fused]\n"
        "    outs:\n      - registration.json: {cache: false}\n      - report/report.html: {cache: false}\n"
    )
    dvc("init", "--no-scm", "--quiet")
    dvc("repro", "--quiet")
    first = read_json(project.registration)
    for file in root.glob("mlflow.db*"):
        file.unlink()
    waiting = python(root, "-m", "pipeline", "verify", "--on-cue")  # its input ends without a line
    assert (waiting.returncode, waiting.stdout) == (0, "")
    done = python(root, "-m", "pipeline", "verify", "--on-cue", cue="\n")
    assert done.returncode == 0, done.stderr
    assert "registering it again" in done.stdout
    assert "up to date" in dvc("status")
    again = read_json(project.registration)
    assert again["content"] == first["content"]
    assert again["run_id"] != first["run_id"]
    found = registry.find_version(Tracker(root), "chorus", again["content"])
    assert found is not None
    assert found.number == again["version"] == registry.alias_number(Tracker(root), "chorus")


def test_files_of_different_runs_are_refused(project: Project) -> None:
    metrics = read_json(project.report / "metrics.json")
    write_judgement(project.root, winner="uniform")
    write_json(project.report / "metrics.json", metrics)
    with pytest.raises(ChorusError, match="judged 'weighted' but models/fused holds 'uniform'"):
        register.run(project)


def test_lineage_knows_commit_changes_and_lock(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    outside = lineage.read_lineage(tmp_path / "no", "register")
    assert (outside.commit, outside.changed, outside.lock) == ("unknown", (), "unknown")
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "dvc.lock").write_text("stages: {fuse: {cmd: a}, register: {cmd: b}}")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "start")
    clean = lineage.read_lineage(tmp_path, "register")
    assert clean.commit == git("rev-parse", "HEAD")
    assert not clean.dirty
    (tmp_path / "dvc.lock").write_text("stages: {register: {cmd: c}, fuse: {cmd: a}}")
    assert lineage.read_lineage(tmp_path, "register") == clean
    (tmp_path / "dvc.lock").write_text("stages: {register: {cmd: c}, fuse: {cmd: b}}")
    (tmp_path / "params.yaml").write_text("")
    dirty = lineage.read_lineage(tmp_path, "register")
    assert dirty.changed == ("params.yaml",)
    assert dirty.lock != clean.lock
