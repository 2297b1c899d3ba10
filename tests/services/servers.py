"""Servers on free ports of the loopback, each ended with all that it started."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import requests

HOST = "127.0.0.1"
PATIENCE = 300.0  # seconds; on a busy machine MLflow's server takes minutes to create its tables


def free_port() -> int:
    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


def answers(address: str) -> Callable[[], bool]:
    """Return a question: whether a page is served at an address."""

    def ask() -> bool:
        try:
            return requests.get(address, timeout=5).status_code == 200
        except requests.ConnectionError:
            return False

    return ask


@contextmanager
def serving(
    command: list[str],
    log: Path,
    ready: Callable[[], bool],
    *,
    environment: Mapping[str, str] = {},
    user: str | None = None,
    ending: signal.Signals = signal.SIGTERM,
) -> Iterator[None]:
    """Run a server until the context ends; fails with its log where it does not get ready.

    environment: added to this process's. user: whom it runs as, where not as we do. ending: the signal it ends on.
    """
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=log.parent if user is None else "/",
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            **as_user(user),
        )
    try:
        end = time.monotonic() + PATIENCE
        while not ready():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield
    finally:
        with suppress(ProcessLookupError):
            # Its workers too: MLflow's server does not wait for those that it started.
            os.killpg(process.pid, ending)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def as_user(user: str | None) -> dict[str, object]:
    return {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


@dataclass(frozen=True)
class Database:
    """A PostgreSQL server that asks for passwords. port: on the loopback. password: of the superuser `postgres`."""

    port: int
    password: str

    def address(self, name: str, user: str, password: str, driver: str = "psycopg2") -> str:
        return f"postgresql+{driver}://{user}:{password}@{HOST}:{self.port}/{name}"

    def create(self, name: str, user: str, password: str) -> None:
        """Create a database and the user who owns it."""
        self.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{password}'", f"CREATE DATABASE {name} OWNER {user}")

    def execute(self, *statements: str) -> None:
        import psycopg2

        connection = psycopg2.connect(
            host=HOST, port=self.port, user="postgres", password=self.password, dbname="postgres", connect_timeout=5
        )
        connection.autocommit = True  # databases are not created in a transaction
        try:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
        finally:
            connection.close()

    def dump(self, name: str) -> bytes:
        """Return all that a database holds, as SQL."""
        programs = postgresql_programs()
        assert programs is not None
        place = ["--host", HOST, "--port", str(self.port), "--username", "postgres", name]
        environment = {**os.environ, "PGPASSWORD": self.password}
        return subprocess.run(
            [programs / "pg_dump", "--data-only", *place], env=environment, check=True, capture_output=True
        ).stdout

    def ready(self) -> bool:
        import psycopg2

        try:
            self.execute("SELECT 1")
        except psycopg2.OperationalError:
            return False
        return True


def postgresql_programs() -> Path | None:
    """Return the folder of PostgreSQL's server programs, which Debian keeps off the path; None where there is none."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


@contextmanager
def postgresql(password: str) -> Iterator[Database]:
    """Run a new PostgreSQL server in a temporary folder, as the user `postgres` where we are root, whom it refuses."""
    programs = postgresql_programs()
    assert programs is not None
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="chorus-postgresql-"))
    try:
        secret, data = folder / "password", folder / "data"
        secret.write_text(password)
        if user is not None:
            for path in (folder, secret):
                shutil.chown(path, user)
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "postgres", "--auth=scram-sha-256", f"--pwfile={secret}", "-N"],
            cwd="/",
            check=True,
            capture_output=True,
            **as_user(user),
        )
        database = Database(free_port(), password)
        settings = {"listen_addresses": HOST, "port": database.port, "unix_socket_directories": folder, "fsync": "off"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [str(programs / "postgres"), "-D", str(data), *options]
        # Its fast shutdown: connections are closed, not waited for.
        with serving(command, folder / "log", database.ready, user=user, ending=signal.SIGINT):
            yield database
    finally:
        shutil.rmtree(folder)


@contextmanager
def s3(log: Path) -> Iterator[str]:
    """Run moto's S3 server; yields its address."""
    port = free_port()
    address = f"http://{HOST}:{port}"
    with serving([sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)], log, answers(address)):
        yield address


@contextmanager
def mlflow(log: Path, database: str, artifacts: str, environment: Mapping[str, str]) -> Iterator[int]:
    """Run MLflow's server, which alone reaches database and artefacts; yields its port."""
    port = free_port()
    places = {"MLFLOW_BACKEND_STORE_URI": database, "MLFLOW_ARTIFACTS_DESTINATION": artifacts}
    # Its workers for other jobs, which score language models, are eight processes more.
    given = {**environment, **places, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "2"]
    with serving(command, log, answers(f"http://{HOST}:{port}/health"), environment=given):
        yield port


@contextmanager
def prefect(log: Path, database: str, log_in: str) -> Iterator[str]:
    """Run Prefect's server, which asks for `log_in` (NAME:PASSWORD); yields the address of its API."""
    port = free_port()
    environment = {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
        "PREFECT_SERVER_API_AUTH_STRING": log_in,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_HOME": str(log.parent / "prefect"),
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    address = f"http://{HOST}:{port}/api"
    with serving(command, log, answers(f"{address}/health"), environment=environment):
        yield address
