"""The state that one rung of a race leaves to the next: everything that training goes on from, and nothing else."""

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from pipeline.errors import ChorusError
from pipeline.exits import lasts
from pipeline.files import replacing
from pipeline.training.state import State

STATE = "state.safetensors"  # its name in the folder of a member


def save_handover(path: Path, state: State) -> None:
    """Write the state to `path`, whole or not at all.

    The same state gives the same bytes: the file is an output that DVC knows by its hash. So it says nothing of the
    machine, and has one entry of metadata, for safetensors writes several in any order.
    """
    with replacing(path) as temporary:
        progress = json.dumps(state.progress(), allow_nan=False)
        save_file(state.tensors(), temporary, metadata={"progress": progress})


def images_seen(path: Path) -> int:
    """Return how many images the state at `path` had seen; raises `ChorusError` where it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return int(json.loads(file.metadata()["progress"])["nimg"])
    except FileNotFoundError:
        raise ChorusError(f"{path} is missing; run `dvc repro` or `dvc pull`") from None
    except Exception as error:  # as below
        if not lasts(error):
            raise
        raise ChorusError(f"{path} is damaged ({error}); remove it and run `dvc repro`") from None


def continue_from(path: Path, state: State) -> None:
    """Put a freshly built `state` where the earlier rung left it; raises `ChorusError` where the file does not fit."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
            state.restore(tensors, json.loads(file.metadata()["progress"]))
    except FileNotFoundError:
        raise ChorusError(f"{path} is missing; run `dvc repro` or `dvc pull`") from None
    except Exception as error:  # safetensors, json and torch raise several kinds for damaged or foreign files
        if not lasts(error):
            raise
        raise ChorusError(
            f"{path} is no state of these networks ({error}); remove the family's folder and run `dvc repro`"
        ) from None
