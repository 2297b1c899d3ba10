"""The whole pipeline on real digits with tiny budgets, driven by DVC and by the flow in one checkout."""

import json
import shutil
import sys

import pytest
from mlflow import MlflowClient

from tests.endtoend.checkout import SMALL, Checkout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """One checkout that `dvc repro` has gone through; the tests below change it one after another."""
    made = Checkout(tmp_path_factory.mktemp("clone") / "chorus")
    made.run("dvc", "repro")
    return made


def runs(checkout, kind):
    client = MlflowClient(f"sqlite:///{checkout.folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("chorus").experiment_id
    return client.search_runs([experiment], f"tags.`chorus.kind` = '{kind}'")


def strategies(checkout):
    return json.loads((checkout.folder / "models/fused/strategies.json").read_text())


@pytest.mark.timeout(600)
def test_dvc_alone_reaches_a_registered_model(checkout):
    assert "up to date" in checkout.run("dvc", "repro")
    metrics = json.loads((checkout.folder / "report/metrics.json").read_text())
    names = {arm["name"] for arm in metrics["arms"]}
    assert names >= {"mlp/r0", "mlp/r1", "vae/r0", "best", "uniform", "weighted", "average", "average_weighted", "vote"}
    assert set(metrics["headline"]) <= set(metrics["arms"][0]["metrics"])
    assert (checkout.folder / "report/report.html").stat().st_size > 10_000
    parents = runs(checkout, "pipeline")
    assert [run.info.status for run in parents] == ["FINISHED"]
    members = runs(checkout, "member")
    assert sorted(run.info.run_name for run in members) == ["mlp/r0", "mlp/r1", "vae/r0"]
    assert {run.info.status for run in members} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in members} == {parents[0].info.run_id}


def test_the_registered_model_draws_images_outside_the_clone(checkout, tmp_path):
    assert checkout.draw_elsewhere(tmp_path, 5) == [5, 8, 8, 1]


@pytest.mark.timeout(600)
def test_the_flow_finds_what_dvc_has_done(checkout):
    before = checkout.lock()
    printed = checkout.run(sys.executable, "-m", "flows.retrain")
    assert "report/report.html" in printed
    assert checkout.lock() == before
    assert checkout.run("dvc", "status").strip() == "Data and pipelines are up to date."


@pytest.mark.timeout(600)
def test_a_changed_learning_rate_retrains_its_family_alone(checkout):
    before = checkout.lock()
    families = {**SMALL["families"], "vae": {**SMALL["families"]["vae"], "lr": 0.002}}
    checkout.write_params(families=families)
    plan = checkout.run(sys.executable, "-m", "flows.retrain", "--plan")
    assert "families.vae.lr" in plan
    checkout.run(sys.executable, "-m", "flows.retrain")
    after = checkout.lock()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"train@vae", "evaluate@vae", "fuse", "choose", "judge", "gate", "register"}
    assert checkout.run("dvc", "status").strip() == "Data and pipelines are up to date."
    assert "up to date" in checkout.run("dvc", "repro")
    parent = max(runs(checkout, "pipeline"), key=lambda run: run.info.start_time)
    children = [run for run in runs(checkout, "member") if run.data.tags["mlflow.parentRunId"] == parent.info.run_id]
    reused = {run.info.run_name: run.data.tags.get("chorus.reused") == "true" for run in children}
    assert reused == {"mlp/r0": True, "mlp/r1": True, "vae/r0": False}
    for run in children:
        assert run.inputs.dataset_inputs[0].dataset.name == "digits"
        assert "kid_classifier" in " ".join(run.data.metrics)
        assert {"loss_d", "loss"} & set(run.data.metrics)


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_an_experiment_retrains_its_family_alone(checkout):
    before = checkout.lock()
    checkout.run("dvc", "exp", "run", "-S", "families.vae.lr=0.003")
    assert checkout.params["families"]["vae"]["lr"] == 0.003
    after = checkout.lock()
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"train@vae", "evaluate@vae", "fuse", "choose", "judge", "gate", "register"}
    assert checkout.run("dvc", "status").strip() == "Data and pipelines are up to date."


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_lost_database_is_filled_again_and_nothing_becomes_dirty(checkout):
    (checkout.folder / "mlflow.db").unlink()
    shutil.rmtree(checkout.folder / "mlartifacts")
    checkout.run(sys.executable, "-m", "flows.retrain")
    client = MlflowClient(f"sqlite:///{checkout.folder / 'mlflow.db'}")
    assert client.get_model_version_by_alias("chorus", "candidate").version in (1, "1")
    assert checkout.run("dvc", "status").strip() == "Data and pipelines are up to date."


@pytest.mark.timeout(600)
def test_a_removed_family_leaves_the_fusion_and_its_folders(checkout):
    checkout.write_params(families={"mlp": SMALL["families"]["mlp"]})
    checkout.run("dvc", "repro", "fuse")
    assert set(strategies(checkout)["members"]) == {"mlp/r0", "mlp/r1"}
    assert not (checkout.folder / "models/members/rung1/vae").exists()
    assert not (checkout.folder / "evaluation/rung1/vae").exists()


@pytest.mark.timeout(600)
def test_an_evaluation_of_other_weights_is_refused(checkout):
    path = checkout.folder / "models/members/rung1/mlp/r0/history.json"
    content = path.read_bytes()
    path.unlink()  # a link into DVC's cache may not be written through
    path.write_bytes(content + b" ")
    printed = checkout.run(sys.executable, "-m", "pipeline", "fuse", status=2)
    assert "measured other weights" in printed
