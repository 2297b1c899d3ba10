"""The fused model in MLflow's registry: one version for each content, found again by its hash."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ChorusError, PassingError
from pipeline.exits import CAN_PASS, lasts, status_of
from pipeline.files import tree_hash
from pipeline.params.redaction import redact
from pipeline.tracking import Run, Tracker

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CONTENT = "chorus.content"  # tag: hash of what defines the sampler
PACKAGE = "chorus.package"  # tag: hash of all of a version's files, the code that samples among them
CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous-champion"  # aliases


@dataclass(frozen=True)
class Version:
    """A registered version: its number as MLflow counts, the run that made it, the hash of its content."""

    model: str
    number: str
    run_id: str
    content: str


@contextmanager
def packed(chosen: Path) -> Iterator[tuple[Path, str]]:
    """Yield a temporary folder with what defines the sampler of `models/chosen`, and its hash."""
    # It imports torch, which those who only move aliases do without.
    from pipeline.packaged.folder import write_content

    with tempfile.TemporaryDirectory(prefix="chorus-") as temporary:
        folder = Path(temporary) / "fused"
        yield folder, write_content(chosen, folder)


def find_version(tracker: Tracker, model: str, content: str) -> Version | None:
    """Return the newest version whose artefacts are there and hold `content`, byte by byte; None if there is none."""
    wanted = f"name = '{model}' and tag.`{CONTENT}` = '{content}'"
    versions = tracker.client.search_model_versions(wanted)
    for version in sorted(versions, key=lambda v: int(v.version), reverse=True):
        if stored_content(tracker, version) == content:
            return Version(model, str(version.version), str(version.run_id), content)
    return None


def stored_content(tracker: Tracker, version: "ModelVersion") -> str | None:
    """Return the hash of what a version's artefacts hold, None where they are lost or other files were altered."""
    with tempfile.TemporaryDirectory(prefix="chorus-") as temporary:
        folder, _ = fetch_whole(tracker, version.name, version.version, Path(temporary))
        return tree_hash(folder / "artifacts" / "fused") if folder else None


def tags_of(tracker: Tracker, model: str, number: str) -> dict[str, str]:
    """Return a version's tags; raises `ChorusError`, naming those that there are, where it does not exist."""
    from mlflow.exceptions import MlflowException

    try:
        return dict(tracker.client.get_model_version(model, number).tags)
    except MlflowException as error:
        if not lasts(error):
            raise
        there = [str(version.version) for version in versions(tracker, model)]
        raise ChorusError(
            f"'{model}' has no version {number}; it has: {', '.join(there) or 'none yet, `dvc repro` registers one'}"
        ) from None


def said_content(tracker: Tracker, model: str, number: str) -> str:
    """Return the hash that a version was registered under; empty for one that Chorus did not register."""
    return tags_of(tracker, model, number).get(CONTENT, "")


def versions(tracker: Tracker, model: str) -> "list[ModelVersion]":
    """Return all versions, the newest first."""
    found = tracker.client.search_model_versions(f"name = '{model}'", max_results=10_000)
    return sorted(found, key=lambda version: int(version.version), reverse=True)


def aliases(tracker: Tracker, model: str) -> dict[str, str]:
    """Return the number of the version that each alias points to."""
    named = tracker.client.search_registered_models(f"name = '{model}'")
    return {alias: str(number) for one in named for alias, number in one.aliases.items()}


def fetch_whole(tracker: Tracker, model: str, number: str, folder: Path) -> tuple[Path | None, str | None]:
    """Download a version into `folder`; return where it lies there, or None and why it is not what was registered.

    Raises what `tags_of` and `download` do.
    """
    folder.mkdir(exist_ok=True)
    tags = tags_of(tracker, model, number)
    path = fetch(tracker, model, number, folder)
    if path is None:
        return None, "its artefacts are lost"
    fault = fault_of(path, tags)
    return (path, None) if fault is None else (None, fault)


def fault_of(path: Path, tags: Mapping[str, str]) -> str | None:
    """Return why a downloaded version is not what was registered with these tags, None where it is; drop bytecode."""
    # Python would run it in place of the code that is compared here.
    for cache in list(path.rglob("__pycache__")):
        if cache.is_dir():  # gone with another one around it, or a file of that name, which the hash counts
            shutil.rmtree(cache)
    if not all((path / name).is_file() for name in ("MLmodel", "model.py")):
        return "its package is not complete"
    if tree_hash(path / "artifacts" / "fused") != tags.get(CONTENT):
        return "its artefacts are damaged: their hash is not the one that it was registered under"
    if tags.get(PACKAGE, package := package_hash(path)) != package:
        return "its package was altered: code or configuration is not what was registered"
    return None


def package_hash(path: Path) -> str:
    """Return a hash of a package's files, but for the note that MLflow leaves in a store when it loads from there."""
    return tree_hash(path, without=["registered_model_meta"])


def fetch(tracker: Tracker, model: str, number: str, folder: Path) -> Path | None:
    """Download a version into `folder` and return where it lies there, None where it or its artefacts are lost.

    Raises what `download` does.
    """
    from mlflow.exceptions import MlflowException

    try:
        address = tracker.client.get_model_version_download_uri(model, number)
    except MlflowException as error:
        if not lasts(error):
            raise
        return None
    return download(tracker, folder, artifact_uri=address)


def download(tracker: Tracker, folder: Path, **where: str) -> Path | None:
    """Download artefacts into `folder` and return where they lie there, None where they are lost.

    where: as MLflow names them, `artifact_uri`, or `run_id` and `artifact_path`. Raises MLflow's error where the store
    does not answer, and where there is no room: nothing is known of the artefacts then.
    """
    from mlflow.artifacts import download_artifacts, list_artifacts
    from mlflow.exceptions import MlflowException

    try:
        # Some stores give an empty folder for what is lost.
        if not list_artifacts(**where, tracking_uri=tracker.uri):
            return None
        return Path(download_artifacts(**where, dst_path=str(folder), tracking_uri=tracker.uri))
    except (MlflowException, OSError) as error:
        if not lasts(error):
            raise
        return None


def write_candidate(content: Path, folder: Path) -> Path:
    """Pack `content` as a version of it would be, and return the package's folder, below `folder`."""
    from mlflow.models import Model

    from pipeline.packaged.folder import write_package

    package = folder / "model"
    write_package(content, package, folder / "code", Model())
    return package


def create_version(
    tracker: Tracker, run: Run, model: str, content: Path, identity: str, tags: Mapping[str, str], description: str
) -> Version:
    """Pack `content`, store it as a model of `run` and register it.

    The version appears last and whole, with all its tags: whoever finds it by its content can rely on it.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    from pipeline.packaged.folder import write_package

    client = tracker.client
    logged = client.create_logged_model(tracker.experiment, name=model, source_run_id=run.id, tags={CONTENT: identity})
    with tempfile.TemporaryDirectory(prefix="chorus-") as temporary:
        path, workspace = Path(temporary) / "model", Path(temporary) / "code"
        info = Model(run_id=run.id, model_uuid=logged.model_id, model_id=logged.model_id)
        write_package(content, path, workspace, info)
        package = package_hash(path)
        client.log_model_artifacts(logged.model_id, str(path))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run.id, [LoggedModelOutput(logged.model_id, step=0)])
    try:
        client.create_registered_model(model, description="Images drawn from the fusion of many generators")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        model,
        # Not `models:/ID`: resolving that, MLflow would open the store of the working folder instead of this one.
        logged.artifact_location,
        run_id=run.id,
        model_id=logged.model_id,
        tags={name: redact(value) for name, value in tags.items()} | {CONTENT: identity, PACKAGE: package},
        description=description,
    )
    return Version(model, str(version.version), run.id, identity)


def describe(
    tracker: Tracker, version: Version, tags: Mapping[str, str], description: str, whole: tuple[str, ...]
) -> None:
    """Give a version these tags and this description in place of those that it had by the same names.

    whole: beginnings of names of which it keeps no other tags than these.
    """
    for name in tags_of(tracker, version.model, version.number).keys() - tags.keys():
        if name.startswith(whole):
            tracker.client.delete_model_version_tag(version.model, version.number, name)
    for name, value in tags.items():
        tracker.client.set_model_version_tag(version.model, version.number, name, redact(value))
    tracker.client.update_model_version(version.model, version.number, description)


def set_candidate(tracker: Tracker, version: Version) -> None:
    """Let the alias `candidate` point to a version."""
    tracker.client.set_registered_model_alias(version.model, CANDIDATE, version.number)


def alias_number(tracker: Tracker, model: str, alias: str = CANDIDATE) -> str | None:
    """Return the number of the version that an alias points to, None where there is none.

    Raises `ChorusError` where the registry does not tell, a `PassingError` where it does not answer now: what it holds
    is not known then.
    """
    from mlflow.exceptions import MlflowException

    try:
        return str(tracker.client.get_model_version_by_alias(model, alias).version)
    except MlflowException as error:
        # No such model, and no such alias of it.
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        kind = PassingError if status_of(error) == CAN_PASS else ChorusError
        raise kind(f"the registry does not tell where '{alias}' of '{model}' points: {error}") from None
