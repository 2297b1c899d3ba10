"""Makes `import torchvision` work beside a CPU-only torch."""

import importlib.util
from pathlib import Path

import torch

# A library must outlive the operators that it defines.
_declared: list[torch.library.Library] = []


def allow_torchvision() -> None:
    """Declare the operators whose absence makes `import torchvision` fail; call it before that import.

    The package index's torchvision is a CUDA build, whose C++ operators do not load beside a CPU-only torch; its Python
    side then refuses to import, because two operators are unknown ("operator torchvision::nms does not exist"). Data
    sets and transforms use neither. Where the real ones load, nothing is declared. torch-fidelity imports torchvision,
    so its users call this first too. Another copy of this code, that of a registered version for instance, may have
    declared them already.
    """
    if hasattr(torch.ops.torchvision, "nms") or _operators_load():
        return
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)


def _operators_load() -> bool:
    """Load torchvision's C++ operators, as its own import does, and say whether that succeeded."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    for extension in Path(spec.origin).parent.glob("_C.*"):
        try:
            torch.ops.load_library(extension)
        except OSError:
            continue
        return True
    return False
