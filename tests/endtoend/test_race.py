"""A race driven by `dvc repro` and by the flow: the same lock entries, and what changes when a race begins or ends."""

import sys

import pytest

from tests.endtoend.checkout import SMALL, Checkout, reproducible

RACE = {
    "budget": {"kimg": 24, "families": 3},
    "racing": {"rungs": [{"rung": 2, "after": 1}], "keep": 0.5, "branch": 1},
    "families": {
        "mlp": {"architecture": "mlp", "replicas": 2, "lr": 0.0005, "width": 16},
        "stuck-mlp": {"architecture": "mlp", "lr": 1e-9, "width": 16},
        "vae": SMALL["families"]["vae"],
    },
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_flow_and_dvc_race_alike_and_a_changed_recipe_retrains_its_family_alone(tmp_path):
    serial, parallel = Checkout(tmp_path / "serial", **RACE), Checkout(tmp_path / "parallel", **RACE)
    serial.run("dvc", "repro")
    parallel.run(sys.executable, "-m", "flows.retrain")
    one, other = serial.lock(), parallel.lock()
    assert {"rank@later0", "advance@later0-mlp", "advance@later0-stuck-mlp", "evaluate-later@later0-vae"} < set(one)
    assert reproducible(one) == reproducible(other)
    assert "The race for the budget" in (serial.folder / "report" / "report.html").read_text()
    assert "up to date" in serial.run("dvc", "status")
    assert serial.run("dvc", "repro").count("Running stage") == 0

    families = {**RACE["families"], "stuck-mlp": {**RACE["families"]["stuck-mlp"], "lr": 2e-9}}
    serial.write_params(families=families)
    planned = serial.run(sys.executable, "-m", "flows.retrain", "--plan")
    assert "train@stuck-mlp" in planned
    said = serial.run("dvc", "repro")
    trained = [line for line in said.splitlines() if line.startswith("Running stage")]
    assert {"Running stage 'train@stuck-mlp':", "Running stage 'rank@later0':"} < set(trained)
    assert not [line for line in trained if "mlp" in line.replace("stuck-mlp", "") or "vae" in line]

    serial.write_params(budget=None, racing={"rungs": []}, families={n: f | {"kimg": 4} for n, f in families.items()})
    said = serial.run("dvc", "repro")
    assert "not in params.yaml any more" in said
    assert "rank@" not in serial.run("dvc", "stage", "list")
    assert "up to date" in serial.run("dvc", "status")
