"""A flat, unlabelled folder of mixed good and broken images, all the way to a registered model."""

import json
import sys

import pytest

from tests.data.make_messy_folder import make_messy_folder
from tests.endtoend.checkout import SMALL, Checkout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_messy_folder_becomes_a_registered_model(tmp_path):
    images = tmp_path / "my images"
    broken = make_messy_folder(images, n=400)
    data = {
        "source": "folder",
        "root": str(images),
        "watch": str(images),
        "size": 16,
        "channels": 3,
        "splits": {"train": 0.5, "val": 0.2, "gate": 0.15, "test": 0.15},
        "max_bad_fraction": 0.05,
        "max_pixels": 1_000_000,
    }
    checkout = Checkout(tmp_path / "chorus", data=data, families={"mlp": SMALL["families"]["mlp"]})
    printed = checkout.run("dvc", "repro")
    assert f"{broken} bad ones left out" in printed
    quarantine = (checkout.folder / "data/prepared/quarantine.jsonl").read_text().splitlines()
    assert len(quarantine) == broken
    assert all(json.loads(line)["reason"] for line in quarantine)
    metrics = json.loads((checkout.folder / "report/metrics.json").read_text())
    assert "fd16_selfsup" in metrics["floor"]
    assert metrics["judges"] == ["selfsup-b", "pixels"]
    assert checkout.draw_elsewhere(tmp_path, 3) == [3, 16, 16, 3]

    # A new image retrains; without one there is nothing to do.
    assert "nothing to do" in checkout.run(sys.executable, "-m", "flows.retrain")
    (images / "new.png").write_bytes((images / sorted(p.name for p in images.glob("*.png"))[0]).read_bytes())
    assert "changed" in checkout.run(sys.executable, "-m", "flows.retrain", "--plan")
