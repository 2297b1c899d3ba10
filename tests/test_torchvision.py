"""torchvision and torch-fidelity import beside any torch."""

import subprocess
import sys

IMPORTS = """
from pipeline._torchvision import allow_torchvision
allow_torchvision()
import torchvision.datasets, torchvision.transforms.v2
allow_torchvision()
import torch_fidelity, torch
assert torch.ops.torchvision.nms
# A copy of the module, as a registered version has one, finds the operators there.
import importlib.util, pipeline._torchvision as module
spec = importlib.util.spec_from_file_location("copied", module.__file__)
copied = importlib.util.module_from_spec(spec)
spec.loader.exec_module(copied)
copied.allow_torchvision()
"""


def test_imports_in_a_fresh_process() -> None:
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
