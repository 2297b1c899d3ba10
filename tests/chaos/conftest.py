"""The stub checkouts and the servers of the flow's tests."""

from tests.flows.conftest import done, done_template, fresh_template, prefect_server, tracked, tracking_store

__all__ = ["done", "done_template", "fresh_template", "prefect_server", "tracked", "tracking_store"]
