"""Passwords and keys are in no message, log, tag or report, and not accepted in params.yaml."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.prune import say as prune_says
from flows.records.old_runs import remove_runs
from flows.retrain import say
from flows.stages.command import verify
from flows.stages.outcomes import Outcome
from flows.stages.process import Processes
from pipeline.__main__ import main
from pipeline.errors import ChorusError
from pipeline.params import parse_params
from pipeline.params.redaction import holds_credentials, redact, redacted_traceback
from tests.factories_fused import PARAMS

SECRET = "hunter2"
ADDRESS = f"postgresql://chorus:{SECRET}@db.example:5432/mlflow"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"no answer from {ADDRESS}: refused", "no answer from postgresql://***@db.example:5432/mlflow: refused"),
        (f"http://u:{SECRET}@h and s3://k:{SECRET}@b", "http://***@h and s3://***@b"),
        (f"'https://h/a?part=1&X-Amz-Signature={SECRET}&x=2'", "'https://h/a?part=1&X-Amz-Signature=***&x=2'"),
        (f"postgresql://h/db?user=a&password={SECRET}", "postgresql://h/db?user=a&password=***"),
        *[
            (text, text)
            for text in (
                "sqlite:////home/a@b/mlflow.db",
                "models:/chorus@champion",
                "http://127.0.0.1:5000/#/models",
                "git@host:a/b.git",
                "mail a@b.example, see https://example.org/a?page=2",
            )
        ],
    ],
)
def test_credentials_are_hidden_and_nothing_else(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert redact(shown) == shown
    assert holds_credentials(text) == (text != shown)


WORD = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"], exclude_characters="/'\"<>"), min_size=1)


@given(user=WORD, password=WORD)
def test_whatever_the_password_is(user: str, password: str) -> None:
    assert redact(f"a mysql://{user}:{password}@host/db b") == "a mysql://***@host/db b"


def test_values_of_the_environments_secrets_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "correct horse")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ab")  # too short to be told from words
    assert redact("it said: correct horse; ab") == "it said: ***; ab"


def test_params_with_credentials_are_refused() -> None:
    for text, key in [
        (PARAMS.replace("watch: images", f"watch: {ADDRESS}"), "data.watch"),
        (PARAMS + f"reference: {{weights: {{vgg16: 'https://h/f?token={SECRET}'}}}}\n", "reference.weights.vgg16"),
    ]:
        with pytest.raises(ChorusError, match=f"{key} holds a password or a key") as error:
            parse_params(text)
        assert SECRET not in str(error.value)


def test_a_registry_that_does_not_answer_is_named_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://chorus:{SECRET}@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert main(["sample", "--model", "models:/chorus@champion", "--n", "1", "--out", str(tmp_path / "out")]) == 75
    said = capsys.readouterr()
    assert "127.0.0.1" in said.err
    assert SECRET not in said.out + said.err


def test_tracebacks_and_the_flows_lines_are_without(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError(ADDRESS)
    except ValueError as error:
        redacted_traceback(type(error), error, error.__traceback__)
    say(f"connecting to {ADDRESS}")
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.count("postgresql://***@db.example") == 2
    assert SECRET not in said


FAILING = f"""
import argparse, runpy, sys
def fail(self, *arguments):
    raise ValueError({ADDRESS!r})
argparse.ArgumentParser.parse_args = fail
runpy.run_module(sys.argv[1], run_name="__main__")
"""


@pytest.mark.parametrize(
    "module",
    ["pipeline.__main__", *(f"flows.{name}" for name in ("retrain", "review", "deploy", "status", "prune", "alarms"))],
)
def test_no_commands_traceback_has_any(module: str) -> None:
    done = subprocess.run([sys.executable, "-c", FAILING, module], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("ValueError: postgresql://***@db.example:5432/mlflow\n")
    assert SECRET not in done.stdout + done.stderr


def test_what_pruning_says_is_without(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    tracker: Any = SimpleNamespace(uri=ADDRESS, client=SimpleNamespace(delete_run=lines.append))
    run: Any = SimpleNamespace(info=SimpleNamespace(run_id="old"))
    remove_runs(tracker, [run], lines.append)
    assert lines[1].startswith("they are marked as deleted; `mlflow gc` on the server at postgresql://***@db.example")
    prune_says(f"chorus: no answer from {ADDRESS}")
    assert SECRET not in capsys.readouterr().err


def test_what_a_stage_says_reaches_prefect_without(tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__main__.py").write_text(f"import sys; print({ADDRESS!r}); sys.exit(1)")
    lines: list[str] = []
    outcome: Outcome = verify(Processes(), tmp_path, {"PYTHONPATH": str(tmp_path)}, lines.append)
    assert outcome.message == "postgresql://***@db.example:5432/mlflow"
    assert lines == [outcome.message]
