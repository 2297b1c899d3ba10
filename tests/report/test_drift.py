"""What the page says of how the data have changed."""

import dataclasses
from typing import Any

from pipeline.report.drift import Drift, told
from pipeline.report.page import render
from tests.report.facts import drift, facts


def said(**other: Any) -> Drift:
    found = told(drift() | other, facts().manifest)
    assert found is not None
    return found


def test_changed_data() -> None:
    found = said()
    assert found.changed
    for words in (
        "899 training images; version 2, the champion had 800.",
        "0.0142 of their variance apart",
        "0.0051 apart (standard deviation 0.0008): they have changed.",
        "12.3 % of them would have to change class",
        "; new: 0.",
    ):
        assert words in found.words
    assert [(bar.label, before) for bar, before in found.bars][::9] == [("0", None), ("9", 0.15)]


def test_data_that_are_the_same_unknown_or_incomparable() -> None:
    assert said(same=True, champion=False) == Drift(
        False, "The prepared images are those of version 2, byte by byte.", []
    )
    assert "Nothing is stored" in said(known=False).words
    other = said(pixels=None, classes=None)
    assert "colour came or went" in other.words
    assert (other.changed, other.bars) == (False, [])
    assert told(None, facts().manifest) is None


def test_a_class_that_is_gone_is_named_and_has_no_bar() -> None:
    rows = [{"name": "a", "share": 1.0, "before": 0.5}, {"name": "b", "share": None, "before": 0.5}]
    found = said(classes={"rows": rows, "variation": 0.5, "p_value": None, "changed": False})
    assert "; gone: b." in found.words
    assert [bar.label for bar, _ in found.bars] == ["a"]


def test_page_shows_drift_and_links() -> None:
    page = render(facts())
    section = page.split('<h2 id="data">')[1].split("</section>")[0]
    assert "they have changed" in section
    assert "10.0 % <small>new</small>" in section
    assert "10.0 % <small>was 11.1</small>" in section
    assert f'<a href="{facts().links["commit"]}" rel="noreferrer">{"0f" * 20}</a>' in page
    silent = render(dataclasses.replace(facts(), drift=None, links={}))
    assert "There is no other version" in silent
    assert '<a href="http' not in silent
