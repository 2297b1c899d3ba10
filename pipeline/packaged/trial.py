"""Try a packaged model out in a process that knows nothing of this checkout.

`python -I trial.py MODEL OUT COUNT SEED` writes OUT/images.npy (uint8 COUNT×H×W×C, the images of that seed) and
OUT/trial.json (`milliseconds` that one of them took, `passes` of networks that the model says it costs). It ends with
status 1 and a last line that says why where the model does not load, or draws other images for a seed the second time,
the same for another seed, or other ones as PNG files.
"""

import base64
import io
import json
import sys
import time
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

OURS = ("pipeline", "flows")
FEW = 8


class Missing(MetaPathFinder):
    """Lets nothing of an installed Chorus be imported: a version has to bring what it needs."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in OURS:
            raise ImportError(f"the packaged model imports {fullname}, which it has to carry itself")
        return None


def try_out(model: Any, count: int, seed: int) -> tuple[np.ndarray, float]:
    """Return `count` images of a seed and the seconds that they took; exits where the model breaks a promise."""
    import pandas as pd
    from PIL import Image

    def drawn(number: int, of: int, kind: str = "array") -> Any:
        return model.predict(pd.DataFrame({"label": [-1] * number}), params={"seed": of, "format": kind})

    first = drawn(FEW, seed)
    if first.dtype != np.uint8 or first.ndim != 4 or len(first) != FEW:
        sys.exit(f"draws {first.dtype} of shape {first.shape}, and has to draw uint8 {FEW}×H×W×C")
    if not alike(first, drawn(FEW, seed)):
        sys.exit("draws other images for the same seed the second time")
    if (first == drawn(FEW, seed ^ 1)).all():
        sys.exit("draws the same images for every seed")
    files = [Image.open(io.BytesIO(base64.b64decode(text))) for text in drawn(FEW, seed, "png")]
    if not alike(first, np.stack([np.asarray(file).reshape(first.shape[1:]) for file in files])):
        sys.exit("draws other images as PNG files than as arrays")
    began = time.perf_counter()
    images = drawn(count, seed)
    return images, time.perf_counter() - began


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether images are equal up to rounding, which differs between kernels of one device."""
    return bool((np.abs(one.astype(int) - other.astype(int)) <= 1).all())


def main(package: str, out: str, count: str, seed: str) -> None:
    """Load the package in `package`, try it out, and write what was found into `out`."""
    sys.meta_path.insert(0, Missing())
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(package)
    images, seconds = try_out(model, int(count), int(seed))
    np.save(Path(out) / "images.npy", images, allow_pickle=False)
    sampler = model.unwrap_python_model().sampler
    found = {"milliseconds": 1000 * seconds / len(images), "passes": float(sampler.cost)}
    (Path(out) / "trial.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
