"""A race of two rungs through its stages: who goes on, from where, and that nothing is trained twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.__main__ import main
from pipeline.errors import ChorusError
from pipeline.evaluation import store
from pipeline.files import file_hash, read_json, tree_hash, write_json
from pipeline.params import parse_params
from pipeline.project import Project
from pipeline.racing.branches import Branching, compare
from pipeline.stages import _pool, advance, evaluate, fuse, rank, reference, train
from pipeline.stages._pool import read_pool
from pipeline.tracking import Tracker
from pipeline.training.handover import STATE
from tests.factories import write_prepared

PARAMS = """
seed: 3
data: {source: digits, watch: unused, size: 8}
compute: {device: cpu, precision: fp32}
reference: {kimg: 2}
budget: {kimg: 24, families: 3}
racing: {rungs: [{rung: 2, after: 1}], keep: 0.5}
families:
  mlp: {architecture: mlp, replicas: 2, batch: 32, latent: 8, width: 16, lr: 0.001}
  stuck: {architecture: mlp, batch: 32, latent: 8, width: 16, lr: 1.0e-9}
  vae: {architecture: vae, batch: 32, latent: 8, width: 8, lr: 0.002, snapshots: 2}
evaluation: {samples: 128}
fusion: {strategies: [best, uniform, weighted]}
"""
FAMILIES = ("mlp", "stuck", "vae")
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def project_at(root: Path, text: str = PARAMS) -> Project:
    (root / "params.yaml").write_text(text)
    return Project(root, parse_params(text))


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose first rung is trained, measured and ranked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        made = project_at(tmp_path_factory.mktemp("ranked"))
        write_prepared(made.prepared, n_train=200, n_val=200)
        reference.run(made)
        for family in FAMILIES:
            train.run(made, family)
            evaluate.run(made, family)
        rank.run(made, 2)
        yield made


@pytest.fixture(scope="module")
def raced(ranked: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same after the last rung."""
    made = copied(ranked, tmp_path_factory.mktemp("raced"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        for family in FAMILIES:
            advance.run(made, family, 2)
            evaluate.run(made, family, 2)
    return made


def copied(source: Project, folder: Path, text: str = PARAMS) -> Project:
    shutil.copytree(source.root, folder, dirs_exist_ok=True)
    return project_at(folder, text)


def decision(project: Project, family: str) -> dict:
    return dict(read_json(project.race_folder(2) / f"{family}.json"))


def test_the_first_rung_has_its_share_and_hands_its_states_over(ranked: Project) -> None:
    """24 kimg in two rungs of three families: 4 kimg for each, 2 for each of two replicas."""
    roster = read_json(ranked.family_folder("mlp") / "family.json")
    assert roster["kimg"] == 2
    assert roster["flops_per_image"] > 0
    assert read_json(ranked.family_folder("vae") / "family.json")["kimg"] == 4
    folder = ranked.family_folder("mlp") / "r1"
    assert sorted(path.name for path in folder.iterdir()) == ["000002016", "history.json", STATE]
    assert evaluate.candidates_of(ranked, "vae", 1) == ["vae/r0/000001984", "vae/r0/000004000"]


def test_the_family_that_learns_nothing_is_out(ranked: Project) -> None:
    """Of three families ⌈1.5⌉ go on, each with half of a rung's 12 kimg; a decision holds nothing else."""
    assert decision(ranked, "stuck") == {"schema": 1, "family": "stuck", "rung": 2, "goes_on": False}
    assert (decision(ranked, "mlp")["kimg"], decision(ranked, "vae")["kimg"]) == (3, 6)
    table = read_json(ranked.race_folder(2) / "table.json")
    assert [row["family"] for row in table["families"]][-1] == "stuck"
    assert [row["goes_on"] for row in table["families"]] == [True, True, False]
    assert {row["family"]: row["seen_kimg"] for row in table["families"]} == {"mlp": 2.016, "stuck": 4.0, "vae": 4.0}
    (run,) = Tracker(ranked.root).find(chorus_member=tree_hash(ranked.family_folder("stuck") / "r0"))
    assert run.data.tags["chorus.race"].startswith("out before rung 2: ")
    assert run.data.tags["chorus.place"] == "3"


def test_ranking_again_writes_the_same_bytes(ranked: Project, tmp_path: Path) -> None:
    again = copied(ranked, tmp_path)
    rank.run(again, 2)
    assert tree_hash(again.race_folder(2)) == tree_hash(ranked.race_folder(2))


@pytest.mark.parametrize(("family", "member", "kimg"), [("mlp", "r1", 5.02), ("vae", "r0", 10)])
def test_a_member_that_went_on_is_that_of_an_unbroken_training(
    raced: Project, tmp_path: Path, family: str, member: str, kimg: float
) -> None:
    text = PARAMS.replace("budget: {kimg: 24, families: 3}\nracing: {rungs: [{rung: 2, after: 1}], keep: 0.5}\n", "")
    text = text.replace("batch: 32", f"batch: 32, kimg: {kimg}")
    unbroken = project_at(tmp_path, text)
    shutil.copytree(raced.prepared, unbroken.prepared)
    train.run(unbroken, family)
    last = sorted((unbroken.family_folder(family) / member).glob("0*"))[-1]
    raced_to = raced.family_folder(family, 2) / member / last.name
    assert tree_hash(raced_to) == tree_hash(last)
    assert not (raced_to.parent / STATE).exists()


def test_all_rungs_are_candidates_and_those_of_families_that_are_out(raced: Project) -> None:
    """Snapshots are counted in images since the first rung, so no two are called alike."""
    ids = [candidate.id for candidate in read_pool(raced, store.deciding_rulers(raced.reference))]
    assert sorted(ids) == [
        *(f"mlp/{member}/{nimg}" for member in ("r0", "r1") for nimg in ("000002016", "000005024")),
        "stuck/r0/000004000",
        *(f"vae/r0/{nimg}" for nimg in ("000001984", "000004000", "000007008", "000010016")),
    ]
    assert read_json(raced.family_folder("vae", 2) / "r0" / "history.json")[0]["nimg"] < 4000
    assert raced.snapshot("mlp/r0/000005024") == raced.family_folder("mlp", 2) / "r0" / "000005024"


def test_a_family_that_is_out_passes_through_with_nothing(raced: Project) -> None:
    roster = read_json(raced.family_folder("stuck", 2) / "family.json")
    assert (roster["members"], roster["out"]) == ([], True)
    assert store.read_evaluation(raced.evaluation_folder("stuck", 2))["candidates"] == []


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(raced: Project, ranked: Project, tmp_path: Path) -> None:
    broken = copied(ranked, tmp_path / "project")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "CHORUS_CHECKPOINT_SECONDS": "0"}
    command = [sys.executable, "-m", "pipeline", "advance", "vae", "--rung", "2"]
    process = subprocess.Popen(command, cwd=broken.root, env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None and not list((broken.checkpoints / "vae").glob("*/*/checkpoint.safetensors")):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    again = subprocess.run(command, cwd=broken.root, env=environment, capture_output=True, text=True, check=True)
    assert "train vae/r0: going on from" in again.stdout
    assert tree_hash(broken.family_folder("vae", 2)) == tree_hash(raced.family_folder("vae", 2))
    assert not (broken.checkpoints / "vae").exists()


def test_another_recipe_of_one_family_leaves_the_decisions_on_the_others(ranked: Project, tmp_path: Path) -> None:
    """Their files keep their bytes, so nothing that depends on them has to run again."""
    changed = copied(ranked, tmp_path, PARAMS.replace("lr: 1.0e-9", "lr: 2.0e-9"))
    train.run(changed, "stuck")
    evaluate.run(changed, "stuck")
    rank.run(changed, 2)
    for family in FAMILIES:
        file = f"{family}.json"
        assert file_hash(changed.race_folder(2) / file) == file_hash(ranked.race_folder(2) / file)


def test_how_many_go_on_is_foretold_from_what_they_learnt(ranked: Project, tmp_path: Path, capsys) -> None:
    """Each family has two snapshots here, and learns much from more images: the nearest gets all of the rung."""
    text = PARAMS.replace("keep: 0.5", "keep: auto").replace("lr: 0.001}", "lr: 0.001, snapshots: 2}")
    made = copied(ranked, tmp_path, text.replace("lr: 1.0e-9}", "lr: 1.0e-9, snapshots: 2}"))
    for family in ("mlp", "stuck"):
        train.run(made, family)
        evaluate.run(made, family)
    capsys.readouterr()
    rank.run(made, 2)
    table = read_json(made.race_folder(2) / "table.json")
    assert len(table["foretold"]) == 3
    assert min(table["foretold"]) == table["foretold"][0] < table["families"][0]["best"]
    assert [row["goes_on"] for row in table["families"]] == [True, False, False]
    first = table["families"][0]["family"]
    assert decision(made, first)["kimg"] * len(made.params.families[first].members) == 12
    told = (
        f"the best mixture, foretold: {table['foretold'][0]:.4f} if 1 goes on, {table['foretold'][1]:.4f} if 2 go on, "
    )
    assert told in capsys.readouterr().out
    assert read_json(ranked.race_folder(2) / "table.json")["foretold"] == []


def test_a_family_without_candidates_is_out_and_its_budget_goes_to_the_others(ranked: Project, tmp_path: Path) -> None:
    made = copied(ranked, tmp_path)
    lose(made, "vae")
    rank.run(made, 2)
    assert decision(made, "vae")["goes_on"] is False
    assert read_json(made.race_folder(2) / "table.json")["failed"] == ["vae"]
    # One of two goes on, with all of the second rung.
    assert {decision(made, family)["goes_on"] for family in ("mlp", "stuck")} == {True, False}
    assert decision(made, "mlp")["kimg"] == 6


def test_nobody_is_left_to_go_on(ranked: Project, tmp_path: Path) -> None:
    made = copied(ranked, tmp_path)
    for family in FAMILIES:
        lose(made, family)
    rank.run(made, 2)
    assert [decision(made, family)["goes_on"] for family in FAMILIES] == [False] * 3
    table = read_json(made.race_folder(2) / "table.json")
    assert (table["families"], table["failed"]) == ([], list(FAMILIES))
    for family in FAMILIES:
        advance.run(made, family, 2)
        evaluate.run(made, family, 2)
    with pytest.raises(ChorusError, match=r"0 members have candidates, fusion\.min_members asks for 1"):
        read_pool(made, store.deciding_rulers(made.reference))


def lose(project: Project, family: str) -> None:
    """Leave the family as one whose members have all failed."""
    folder, measured = project.family_folder(family), project.evaluation_folder(family)
    for member in folder.glob("r*"):
        shutil.rmtree(member)
    write_json(folder / "family.json", {**read_json(folder / "family.json"), "members": []})
    content = {**read_json(measured / "evaluation.json"), "candidates": [], "models_hash": tree_hash(folder)}
    write_json(measured / "evaluation.json", content)


def test_where_the_first_rung_started_from_is_not_looked_for_again(
    raced: Project, ranked: Project, tmp_path: Path
) -> None:
    """The state already holds it; a clone that has only the state goes on all the same."""
    pinned = f"warm_start: {{source: ./gone.safetensors, version: null, content: '{'0' * 64}'}}"
    made = copied(ranked, tmp_path, PARAMS.replace("lr: 0.002", f"lr: 0.002, {pinned}"))
    advance.run(made, "vae", 2)
    # The same training; only the average differs, which a warm start does not shorten.
    histories = [(of.family_folder("vae", 2) / "r0" / "history.json").read_bytes() for of in (made, raced)]
    assert histories[0] == histories[1]


def test_a_state_that_is_missing_or_of_other_networks_is_said(ranked: Project, tmp_path: Path) -> None:
    made = copied(ranked, tmp_path)
    state = made.family_folder("vae") / "r0" / STATE
    shutil.copyfile(made.family_folder("mlp") / "r0" / STATE, state)
    with pytest.raises(ChorusError, match="is no state of these networks"):
        advance.run(made, "vae", 2)
    state.unlink()
    with pytest.raises(ChorusError, match=r"state\.safetensors is missing; run `dvc repro`"):
        advance.run(made, "vae", 2)


def test_what_a_race_that_is_over_left_is_removed_before_fusing(raced: Project, tmp_path: Path) -> None:
    """Without rungs the folders of the second one belong to nobody; DVC leaves them where they are."""
    text = PARAMS.replace("racing: {rungs: [{rung: 2, after: 1}], keep: 0.5}\n", "")
    alone = copied(raced, tmp_path, text)
    fuse.run(alone)
    assert not list(alone.members.glob("rung2/*"))
    assert not list(alone.evaluation.glob("rung2/*"))
    assert not alone.race_folder(2).exists()


def test_the_commands_know_the_rungs(ranked: Project, tmp_path: Path, monkeypatch, capsys) -> None:
    made = copied(ranked, tmp_path)
    monkeypatch.chdir(made.root)
    assert main(["advance", "stuck", "--rung", "2"]) == 0
    assert json.loads((made.family_folder("stuck", 2) / "family.json").read_text())["out"] is True
    assert main(["rank", "--rung", "3"]) == 2
    assert "there is no rung 3 to rank; params.yaml has: 2" in capsys.readouterr().err
    assert main(["advance", "vae", "--rung", "1"]) == 2


@pytest.fixture(scope="module")
def branched(ranked: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A race whose last rung divides the members of one family into two siblings each."""
    text = PARAMS.replace("keep: 0.5}", "keep: 0.1, branch: 2}").replace("replicas: 2, ", "")
    made = copied(ranked, tmp_path_factory.mktemp("branched"), text)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        rank.run(made, 2)
        for family in FAMILIES:
            advance.run(made, family, 2)
            evaluate.run(made, family, 2)
    return made


def test_half_of_the_last_rung_goes_to_siblings_with_random_numbers_of_their_own(
    branched: Project, ranked: Project
) -> None:
    """12 kimg for one family of one member: 6 for its plain continuation and 3 for each of two siblings."""
    assert decision(branched, "vae")["kimg"] == 6
    assert decision(branched, "vae")["siblings"] == {"count": 2, "kimg": 3}
    folder = branched.family_folder("vae", 2)
    roster = read_json(folder / "family.json")
    assert roster["members"] == ["r0", "r0b1", "r0b2"]
    assert roster["siblings"] == ["r0b1", "r0b2"]
    ends = {member: sorted((folder / member).glob("0*"))[-1] for member in roster["members"]}
    assert [path.name for path in ends.values()] == ["000010016", "000007008", "000007008"]
    weights = {file_hash(path / "generator.safetensors") for path in (ends["r0b1"], ends["r0b2"])}
    plain = folder / "r0" / "000007008" / "generator.safetensors"
    assert len(weights | {file_hash(plain)}) == 3
    before = read_json(ranked.family_folder("vae") / "r0" / "history.json")
    assert read_json(folder / "r0b1" / "history.json")[: len(before)] == before


@pytest.mark.parametrize("better", [True, False])
def test_siblings_stay_candidates_only_where_they_measure_better(
    branched: Project, monkeypatch: pytest.MonkeyPatch, capsys, better: bool
) -> None:
    def compared(*given: Any) -> list[Branching]:
        """What was measured, with the verdict that is wanted here."""
        (measured,) = compare(*given)
        near, far = sorted((measured.plain, measured.siblings))
        assert near < far
        return [Branching(measured.family, far, near) if better else Branching(measured.family, near, far)]

    monkeypatch.setattr(_pool, "compare", compared)
    fuse.run(branched)
    fused = read_json(branched.fused / "strategies.json")
    (found,) = fused["siblings"]
    assert found["family"] == "vae"
    assert found["kept"] is better
    assert ("vae/r0b1" in fused["members"]) is better
    assert f"siblings in vae {'kept' if better else 'left out'}" in capsys.readouterr().out
    assert "vae/r0" in fused["members"]
    assert "stuck/r0" in fused["members"]


def test_siblings_stand_for_no_member_that_failed(branched: Project) -> None:
    text = (branched.root / "params.yaml").read_text().replace("fusion: {", "fusion: {min_members: 5, ")
    rulers = store.deciding_rulers(branched.reference)
    members = {candidate.member for candidate in read_pool(branched, rulers)}
    assert members == {"mlp/r0", "mlp/r1", "stuck/r0", "vae/r0", "vae/r0b1", "vae/r0b2"}
    with pytest.raises(ChorusError, match=r"4 members have candidates, fusion\.min_members asks for 5"):
        read_pool(Project(branched.root, parse_params(text)), rulers)
