"""Runs of MLflow that nobody needs any more; those that a registered version comes from always stay."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.params.redaction import redact
from pipeline.tracking import KIND, PARENT, Tracker

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

DAY = 24 * 3600.0
OPENING = "opening"  # kind of the runs that tell what was measured on the test split
ORIGINAL = "chorus.original"  # tag of a run that took a member over: the run that trained it
Say = Callable[[str], None]


def old_runs(tracker: Tracker, versions: Collection[Any], days: float) -> "list[MlflowRun]":
    """Return the runs that ended more than so many days ago and that no version refers to.

    A version refers to the run that made it, to all runs of the same pipeline run, and to those that trained members
    which these took over. Openings of the test split stay, for published claims refer to them.
    """
    oldest = (time.time() - days * DAY) * 1000
    runs = {run.info.run_id: run for run in _all_runs(tracker)}
    kept = {name for name in runs if _tag(runs, name, KIND) == OPENING}
    for version in versions:
        parents = {version.run_id, _tag(runs, version.run_id, PARENT)}
        family = {name for name in runs if name in parents or _tag(runs, name, PARENT) in parents}
        trained = {_tag(runs, name, ORIGINAL) for name in family}
        kept |= family | trained | {_tag(runs, name, PARENT) for name in trained}
    return [
        run
        for name, run in runs.items()
        if name not in kept and run.info.status != "RUNNING" and (run.info.end_time or run.info.start_time) < oldest
    ]


def _tag(runs: "Mapping[str, MlflowRun]", name: str, tag: str) -> str:
    return str(runs[name].data.tags.get(tag, "")) if name in runs else ""


def _all_runs(tracker: Tracker) -> "Iterator[MlflowRun]":
    token = None
    while True:
        page = tracker.client.search_runs([tracker.experiment], max_results=1000, page_token=token)
        yield from page
        if not (token := page.token):
            return


def remove_runs(tracker: Tracker, runs: "Collection[MlflowRun]", say: Say) -> None:
    """Remove runs with their artefacts; from a server they are only marked as deleted, which its owner can undo.

    `mlflow gc` would remove other deleted experiments and models of the store along with them. A run goes after its
    artefacts, so that one that a kill left half removed is found again.
    """
    if not tracker.uri.startswith("sqlite:///"):
        for run in runs:
            tracker.client.delete_run(run.info.run_id)
        if runs:
            say(f"they are marked as deleted; `mlflow gc` on the server at {redact(tracker.uri)} frees their room")
        return
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.tracking._tracking_service.utils import _get_store

    store = _get_store(tracker.uri)
    for run in runs:
        get_artifact_repository(run.info.artifact_uri).delete_artifacts()
        store._hard_delete_run(run.info.run_id)  # what `mlflow gc` itself calls


def all_versions(tracker: Tracker) -> list[Any]:
    """Return all versions of all models in the registry."""
    return list(tracker.client.search_model_versions(max_results=10_000))
