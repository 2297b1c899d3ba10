"""What a package that is tried out in a fresh process sees of the one that tries it."""

import pytest
import torch

from pipeline.compute import Runtime
from pipeline.stages._trial import environment


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
