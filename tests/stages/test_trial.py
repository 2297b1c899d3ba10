"""What a package that is tried out in a fresh process sees of the one that tries it."""

import signal
from pathlib import Path

import pytest
import torch

from pipeline.compute import Runtime
from pipeline.errors import PassingError
from pipeline.packaged import trial
from pipeline.stages._trial import environment, try_out


def test_it_sees_no_credentials_no_store_and_none_of_our_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    withheld = ("PYTHONPATH", "MLFLOW_TRACKING_URI", "AWS_PROFILE", "HUB_TOKEN", "database_password")
    for name in withheld:
        monkeypatch.setenv(name, "something")
    monkeypatch.setenv("PREFECT_API_URL", "https://us:er@host/api")
    monkeypatch.setenv("LANG", "C.UTF-8")
    seen = environment(Runtime(torch.device("cpu"), None))
    assert not {*withheld, "PREFECT_API_URL"} & set(seen)
    assert seen["LANG"] == "C.UTF-8"
    assert seen["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"


CPU = Runtime(torch.device("cpu"), None)


def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> str | None:
    """Return the fault of a trial whose process runs this code."""
    script = tmp_path / "ends.py"
    script.write_text(code)
    monkeypatch.setattr(trial, "__file__", str(script))
    return try_out(tmp_path, tmp_path, 1, 0, CPU).fault


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (f"import os; os.kill(os.getpid(), {signal.SIGKILL:d})", "was killed (Killed)"),
        ("x = bytearray(10**17)", "MemoryError"),
        ("import torch; raise torch.cuda.OutOfMemoryError('CUDA')", "torch.OutOfMemoryError: CUDA"),
        ("import torch; torch.empty(10**15)", "can't allocate memory"),
    ],
)
def test_what_ended_by_no_fault_of_its_own_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    with pytest.raises(PassingError) as raised:
        ends(tmp_path, monkeypatch, code)
    assert words in str(raised.value)
    assert "try again" in str(raised.value)


def test_a_fault_of_its_own_is_a_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ends(tmp_path, monkeypatch, "raise ValueError('no MemoryError')") == "ValueError: no MemoryError"
    monkeypatch.setenv("HUB_TOKEN", "s3cret'\"<>")
    assert ends(tmp_path, monkeypatch, "raise ValueError('s3cret\\'\"<>')") == "ValueError: ***"
    assert ends(tmp_path, monkeypatch, "import os; os._exit(3)") == "it ended with status 3"
    crash = f"import os; os.kill(os.getpid(), {signal.SIGSEGV:d})"
    assert ends(tmp_path, monkeypatch, crash) == f"it ended with status -{signal.SIGSEGV:d}"
