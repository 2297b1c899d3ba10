"""What the page tells of selection before fusion, and of what mixing can gain."""

import dataclasses

from pipeline.report.page import render
from tests.report.facts import facts


def test_page_tells_what_was_selected_and_what_mixing_can_gain() -> None:
    page = render(facts())
    assert "Which candidates entered the fusion" in page
    assert (
        '<th scope="row">vae/r0/000200000</th><td>12.3</td><td>out</td><td class="text">2.37 times the nearest</td>'
        in page
    )
    assert "What mixing can gain" in page
    assert "<td>0.0419</td><td>0.0233</td><td>0.0186</td><td>56 %</td>" in page
    assert '<td style="--heat: 31%" class="apart">-0.31</td>' in page


def test_page_is_silent_where_strategies_json_is() -> None:
    made = facts()
    silent = {key: value for key, value in made.strategies.items() if key not in ("selection", "diversity")}
    page = render(dataclasses.replace(made, strategies=silent))
    assert "Which candidates" not in page
    assert "What mixing can gain" not in page
