"""The stage with the longest way to go is the most urgent; worked by hand."""

import pytest

from flows.planning.graph import Graph, Stage
from flows.planning.plan import LEAVE, RESTORE, RUN, Step
from flows.planning.urgency import urgencies

# prepare -> reference -+-> evaluate@x -+-> fuse
#        +-> train@x ---+               |
#        +-> train@y ------------------ + evaluate@y
GRAPH = Graph(
    [
        Stage("prepare", (), ()),
        Stage("reference", ("prepare",), ()),
        Stage("train@x", ("prepare",), ()),
        Stage("train@y", ("prepare",), ()),
        Stage("evaluate@x", ("reference", "train@x"), ()),
        Stage("evaluate@y", ("reference", "train@y"), ()),
        Stage("fuse", ("evaluate@x", "evaluate@y"), ()),
    ]
)
MEASURED = {"prepare": 5.0, "reference": 40.0, "train@x": 60.0, "train@y": 20.0, "evaluate@x": 2.0, "fuse": 10.0}


def steps(**others: str) -> list[Step]:
    return [Step(stage, others.get(stage.replace("@", "_"), RUN)) for stage in GRAPH.stages]


def test_longest_path_to_the_end() -> None:
    # evaluate@y has never run: it is expected to take what evaluate@x took.
    assert urgencies(GRAPH, steps(), MEASURED) == {
        "prepare": 5 + 60 + 2 + 10,
        "reference": 40 + 2 + 10,
        "train@x": 60 + 2 + 10,
        "train@y": 20 + 2 + 10,
        "evaluate@x": 2 + 10,
        "evaluate@y": 2 + 10,
        "fuse": 10,
    }


def test_what_is_up_to_date_or_restored_takes_nothing() -> None:
    ranks = urgencies(GRAPH, steps(prepare=LEAVE, train_x=RESTORE), MEASURED)
    assert (ranks["train@x"], ranks["prepare"]) == (12, 52)


def test_without_any_measurement_the_number_of_stages_counts() -> None:
    assert urgencies(GRAPH, steps(), {}) == pytest.approx(
        {"prepare": 4, "reference": 3, "train@x": 3, "train@y": 3, "evaluate@x": 2, "evaluate@y": 2, "fuse": 1}
    )


def test_a_kind_that_never_ran_is_expected_to_take_the_mean_of_all() -> None:
    assert urgencies(GRAPH, steps(), {"prepare": 4.0, "reference": 8.0})["fuse"] == 6.0


def test_selected_stages_are_joined_through_those_that_are_not() -> None:
    only = [Step("prepare", RUN), Step("fuse", RUN)]
    assert urgencies(GRAPH, only, MEASURED) == {"prepare": 15.0, "fuse": 10.0}
