"""Addresses in a report: those that a browser may follow, without what is secret."""

import pytest

from pipeline.stages._links import commit_page, web_address


@pytest.mark.parametrize(
    ("remote", "base"),
    [
        ("https://example.org/us/chorus.git", "https://example.org/us/chorus"),
        ("https://me:token@example.org/us/chorus", "https://example.org/us/chorus"),
        ("https://example.org:8443/us/chorus.git", "https://example.org:8443/us/chorus"),
        ("git@example.org:us/chorus.git", "https://example.org/us/chorus"),
        ("ssh://git@example.org:2222/us/chorus.git", "https://example.org/us/chorus"),
    ],
)
def test_a_commit_is_shown_by_its_host(remote: str, base: str) -> None:
    assert commit_page(remote, "0f0f") == f"{base}/commit/0f0f"


@pytest.mark.parametrize("remote", ["", "/srv/git/chorus", "../chorus", "file:///srv/chorus", "javascript:alert(1)//x"])
def test_other_remotes_have_no_pages(remote: str) -> None:
    assert commit_page(remote, "0f0f") is None


def test_what_git_does_not_know_has_no_page() -> None:
    assert commit_page("https://example.org/us/chorus", "unknown") is None


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://me:secret@tracking:5000/?token=secret#x", "http://tracking:5000"),
        ("https://tracking/mlflow/", "https://tracking/mlflow"),
        ("sqlite:////srv/mlflow.db", None),
        ("http://[broken", None),
        ("", None),
    ],
)
def test_only_web_addresses_and_nothing_secret(address: str, told: str | None) -> None:
    assert web_address(address) == told
