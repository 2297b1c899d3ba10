"""What results depend on in their last bits: versions of libraries and the processor's instructions.

Nothing outside the standard library is imported, for this is asked first of all on a machine that may lack the rest.
"""

import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "torch",
    "torchvision",
    "torch-fidelity",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "pillow",
    "safetensors",
    "pydantic",
    "psutil",
    "dvc",
    "mlflow",
)
# By these oneDNN and OpenBLAS choose their kernels.
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_tile", "asimd", "sve")
MISSING = "missing"


def surroundings() -> dict[str, str]:
    """Return the versions of Python and of the libraries, `missing` where there is none, and the instruction set."""
    found = {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}
    found["git"] = "there" if shutil.which("git") else MISSING
    found["instructions"] = _instructions()
    return found


def missing(found: Mapping[str, str]) -> list[str]:
    """Return the names of what a machine lacks to compute a stage."""
    return [name for name, value in found.items() if value == MISSING]


def differences(head: Mapping[str, str], node: Mapping[str, str]) -> list[str]:
    """Return what differs on a node, each as `name THERE, NODE here`; the same bits are only to be had without any."""
    return [f"{name} {head[name]} there, {node.get(name)} here" for name in head if node.get(name) != head[name]]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return MISSING


def _instructions() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    flags = next((line.split() for line in lines if line.startswith(("flags", "Features"))), [])
    return "+".join([platform.machine(), *(name for name in INSTRUCTIONS if name in flags)])
