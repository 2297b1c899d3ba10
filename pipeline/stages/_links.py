"""Where a report's reader finds what it names: MLflow's pages, the Prefect run, the commit on its host."""

import re
from urllib.parse import urlsplit, urlunsplit

from pipeline.lineage import UNKNOWN, origin
from pipeline.registry import Version
from pipeline.tracking import Run, Tracker

LOCAL_PAGES = "http://127.0.0.1:5000"  # where `make ui` shows a store that is a file


def links(tracker: Tracker, parent: Run, version: Version, commit: str) -> dict[str, str]:
    """Return addresses by the names that the report's lineage uses; only http and https, without credentials."""
    pages = web_address(tracker.uri) or LOCAL_PAGES
    found: dict[str, str | None] = {
        "version": f"{pages}/#/models/{version.model}/versions/{version.number}",
        "pipeline run": run_page(tracker, pages, parent.id),
        "model's run": run_page(tracker, pages, version.run_id),
        "Prefect run": web_address(tags_of(parent).get("prefect.url", "")),
        "commit": commit_page(origin(tracker.root), commit),
    }
    return {name: address for name, address in found.items() if address}


def prefect_run(parent: Run) -> dict[str, str]:
    """Return the id of the flow run that drove this pipeline run, by the name of it; nothing where none did."""
    flow_run = tags_of(parent).get("prefect.flow_run")
    return {"Prefect run": flow_run} if flow_run else {}


def tags_of(run: Run) -> dict[str, str]:
    tags: dict[str, str] = run.client.get_run(run.id).data.tags
    return tags


def run_page(tracker: Tracker, pages: str, run: str) -> str:
    """Return the address of a run's page."""
    return f"{pages}/#/experiments/{tracker.experiment}/runs/{run}"


def commit_page(remote: str, commit: str) -> str | None:
    """Return where a host shows a commit, None where the remote is no host with pages: a folder, say."""
    if commit == UNKNOWN:
        return None
    ssh = re.fullmatch(r"(?:ssh://)?[\w.-]+@([\w.-]+)[:/](?:\d+/)?(.+)", remote)
    base = f"https://{ssh[1]}/{ssh[2]}" if ssh else web_address(remote)
    return f"{base.removesuffix('.git')}/commit/{commit}" if base else None


def web_address(address: str) -> str | None:
    """Return an http or https address without credentials, query and trailing slash, None for anything else."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
