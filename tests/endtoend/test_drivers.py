"""The flow and `dvc repro` in two checkouts leave the same lock entries."""

import sys

import pytest

from tests.endtoend.checkout import Checkout, reproducible


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_flow_and_dvc_leave_the_same_lock_entries(tmp_path):
    serial, parallel = Checkout(tmp_path / "serial"), Checkout(tmp_path / "parallel")
    serial.run("dvc", "repro")
    parallel.run(sys.executable, "-m", "flows.retrain")
    one, other = serial.lock(), parallel.lock()
    assert reproducible(one) == reproducible(other)
