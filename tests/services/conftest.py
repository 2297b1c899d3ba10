"""PostgreSQL, S3, MLflow's and Prefect's server for the whole session, and a checkout that works with them."""

import importlib.util
import os
import pwd
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.endtoend.checkout import Checkout
from tests.services import servers

BUCKET = "chorus"
PACKAGES = ("boto3", "dvc_s3", "moto", "psycopg2")


def secret(of: str) -> str:
    """Return a password that names itself where it leaks, and stands in no file of the tests."""
    return f"{of}-{secrets.token_hex(8)}"


SUPERUSER, OF_MLFLOW, OF_PREFECT = secret("superuser"), secret("mlflow-database"), secret("prefect-database")
TRACKING, LOG_IN, KEY = secret("tracking-address"), secret("prefect-log-in"), secret("s3-key")
SECRETS = (SUPERUSER, OF_MLFLOW, OF_PREFECT, TRACKING, LOG_IN, KEY)


def missing() -> str | None:
    """Return why these tests cannot run here, None where they can."""
    remedy = "`make test-services` installs it"
    if lacking := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        return f"{', '.join(lacking)} missing: {remedy}"
    if servers.postgresql_programs() is None:
        return f"PostgreSQL is not installed: {remedy}"
    if os.geteuid() == 0 and "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        return f"PostgreSQL does not run as root, and there is no user 'postgres': {remedy}"
    return None


@dataclass(frozen=True)
class Backends:
    """Where the servers are. s3: address. keys: of S3, as environment. mlflow, prefect: addresses for their clients."""

    database: servers.Database
    s3: str
    keys: dict[str, str]
    mlflow: str
    prefect: str

    def objects(self) -> Any:
        """Return the client that the tests look into the bucket with."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.s3,
            aws_access_key_id=self.keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEY,
            region_name=self.keys["AWS_DEFAULT_REGION"],
        )


@pytest.fixture(scope="session")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    if why := missing():
        pytest.skip(why)
    logs = tmp_path_factory.mktemp("servers")
    keys = {"AWS_ACCESS_KEY_ID": "chorus", "AWS_SECRET_ACCESS_KEY": KEY, "AWS_DEFAULT_REGION": "us-east-1"}
    with ExitStack() as stack:
        database = stack.enter_context(servers.postgresql(SUPERUSER))
        database.create("mlflow", "mlflow", OF_MLFLOW)
        database.create("direct", "direct", OF_MLFLOW)
        database.create("prefect", "prefect", OF_PREFECT)
        s3 = stack.enter_context(servers.s3(logs / "s3.log"))
        keys["MLFLOW_S3_ENDPOINT_URL"] = s3
        store = database.address("mlflow", "mlflow", OF_MLFLOW)
        records = database.address("prefect", "prefect", OF_PREFECT, "asyncpg")
        found = Backends(database, s3, keys, "", "")
        found.objects().create_bucket(Bucket=BUCKET)
        port = stack.enter_context(servers.mlflow(logs / "mlflow.log", store, f"s3://{BUCKET}/mlflow", keys))
        api = stack.enter_context(servers.prefect(logs / "prefect.log", records, f"chorus:{LOG_IN}"))
        yield Backends(database, s3, keys, f"http://chorus:{TRACKING}@{servers.HOST}:{port}", api)


@pytest.fixture(scope="session")
def checkout(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout whose commands use the servers; it knows no key of S3 but its DVC remote's."""
    folder = tmp_path_factory.mktemp("clone")
    environment = {
        "MLFLOW_TRACKING_URI": backends.mlflow,
        "PREFECT_API_URL": backends.prefect,
        "PREFECT_API_AUTH_STRING": f"chorus:{LOG_IN}",
        "PREFECT_HOME": str(folder / "prefect"),
    }
    made = Checkout(folder / "chorus", environment)
    made.run("dvc", "remote", "add", "--default", "store", f"s3://{BUCKET}/dvc")
    made.run("dvc", "remote", "modify", "store", "endpointurl", backends.s3)
    made.run("git", "commit", "-qam", "A remote")
    log_in(made, backends)
    return made


def log_in(checkout: Checkout, backends: Backends) -> None:
    """Give a clone the keys of its remote, in the file that git does not see."""
    checkout.run("dvc", "remote", "modify", "--local", "store", "access_key_id", backends.keys["AWS_ACCESS_KEY_ID"])
    checkout.run("dvc", "remote", "modify", "--local", "store", "secret_access_key", KEY)
