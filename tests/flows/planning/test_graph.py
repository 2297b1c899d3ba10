"""The graph and its changes are DVC's own."""

from pathlib import Path

import pytest

from flows.planning.graph import family, read_graph
from flows.planning.plan import LEAVE, RESTORE, RUN, Step, plan, render
from pipeline.errors import ChorusError


def steps(root: Path, *only: str, force: bool = False) -> dict[str, Step]:
    graph = read_graph(root)
    return {step.stage: step for step in plan(graph, graph.select(only), force=force)}


def test_stages_edges_and_selection(fresh: Path) -> None:
    graph = read_graph(fresh)
    assert list(graph.stages) == ["ingest", "train@x", "train@y", "register"]
    assert graph.stages["register"].upstream == ("train@x", "train@y")
    assert graph.select([]) == tuple(graph.stages)
    assert graph.select(["register", "train"]) == ("train@x", "train@y", "register")
    assert graph.before("register", ["ingest", "train@y", "register"]) == ("ingest", "train@y")
    assert family("train@x") == "x"
    assert family("advance@later0-x-y") == "x-y"
    assert family("ingest") is None
    assert family("rank@later0") is None
    assert family("train@later1") == "later1"
    assert family("distill@small") is None
    with pytest.raises(ChorusError, match=r"no stage 'tarin'; it has: ingest, train, register, train@x, train@y"):
        graph.select(["tarin"])


def test_nothing_ran_yet(fresh: Path) -> None:
    assert {step.what for step in steps(fresh).values()} == {RUN}
    assert steps(fresh)["ingest"].why == "never run"


def test_nothing_to_do_and_forced(done: Path) -> None:
    assert {step.what for step in steps(done).values()} == {LEAVE}
    assert {step.why for step in steps(done, "train", force=True).values()} == {"forced"}


def test_a_parameter_names_itself_and_what_follows(done: Path) -> None:
    path = done / "params.yaml"
    path.write_text(path.read_text().replace("lr: 0.1", "lr: 0.2"))
    found = steps(done)
    assert found["train@x"] == Step("train@x", RUN, "params changed: families.x.lr")
    assert found["register"] == Step("register", RUN, "because train@x runs")
    assert found["train@y"].what == LEAVE
    assert steps(done, "register")["register"].what == LEAVE
    text = render(list(found.values()))
    assert "train@x   would run          params changed: families.x.lr" in text
    assert "2 of 4 stages have something to do" in text


def test_a_lost_output_comes_from_the_cache(done: Path) -> None:
    (done / "model-x.txt").unlink()
    found = steps(done)
    assert found["train@x"] == Step("train@x", RESTORE, "lost: model-x.txt")
    assert found["register"].what == LEAVE
    assert steps(done, "register")["register"].why == "missing: model-x.txt"


def test_a_lost_output_and_cache_mean_work(done: Path) -> None:
    (done / "model-x.txt").unlink()
    for file in (done / ".dvc" / "cache" / "files").rglob("*"):
        if file.is_file():
            file.chmod(0o644)
            file.unlink()
    assert steps(done)["train@x"].what == RUN


def test_a_changed_source_and_a_changed_command(done: Path) -> None:
    (done / "source.txt").write_text("other")
    path = done / "dvc.yaml"
    path.write_text(path.read_text().replace("work.py register", "work.py  register"))
    found = steps(done)
    assert found["ingest"].why == "changed: source.txt"
    assert found["train@x"].why == "because ingest runs"
    assert found["register"].why == "command changed"


def test_no_checkout(tmp_path: Path, done: Path) -> None:
    with pytest.raises(ChorusError, match=r"has no \.git"):
        read_graph(tmp_path)
    (done / "dvc.yaml").write_text("stages: [")
    with pytest.raises(ChorusError, match="DVC cannot read the graph"):
        read_graph(done)
