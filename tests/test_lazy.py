"""Commands that print, refuse or check start at once: what is heavy is imported when it is needed."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "torchvision", "numpy", "scipy", "sklearn", "pandas", "mlflow", "prefect", "dvc", "ray", "rich"}


@pytest.mark.parametrize(
    "module", ["pipeline.__main__", "flows.retrain", "pipeline.stages.verify", "pipeline.packaged.folder"]
)
def test_nothing_heavy_is_imported_before_it_is_needed(module: str) -> None:
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) & HEAVY == set()
