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
"""


def test_imports_in_a_fresh_process() -> None:
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
