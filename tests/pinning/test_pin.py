"""Pinning against a real registry, and starting from what was pinned."""

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.exceptions import MlflowException
from safetensors.torch import load_file, save_file

from pipeline.__main__ import main
from pipeline.compute import set_up
from pipeline.data.dataset import read_manifest
from pipeline.errors import ChorusError
from pipeline.exits import CAN_PASS, status_of
from pipeline.files import tree_hash
from pipeline.params import WarmStart
from pipeline.pinning import versions, weights
from pipeline.project import Project
from pipeline.stages import pin, register, train
from pipeline.stages.train import training_key
from pipeline.tracking import PIPELINE_RUN, Tracker
from pipeline.training.interruption import Interruption
from tests.factories_fused import PARAMS, write_fused, write_judgement, write_project, write_snapshot, write_verdict
from tests.test_registry import in_a_store_that_is_away

FIRST, SECOND = (f"mlp/r{i}/000001000" for i in (0, 1))
OTHERS = """  other: {architecture: mlp, kimg: 1, width: 8, latent: 4}
  gan: {architecture: dcgan, kimg: 1, width: 8, latent: 4, warm_start: champion}
"""


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two versions, of which the first draws mostly from r0 and the second mostly from r1."""
    root = tmp_path_factory.mktemp("registered") / "project"
    root.mkdir()
    write_project(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(PIPELINE_RUN, raising=False)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        register.run(Project.load(root))
        write_fused(root / "models" / "chosen", weights=(0.25, 0.75))
        write_judgement(root)
        write_verdict(root)
        register.run(Project.load(root))
    return root


@pytest.fixture
def root(registered: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That project, whose store knows where it lies, with plain parameters and no champion."""
    monkeypatch.delenv(PIPELINE_RUN, raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.rmtree(registered / ".warm", ignore_errors=True)
    tracker = Tracker(registered)
    if "champion" in tracker.client.get_registered_model("chorus").aliases:
        tracker.client.delete_registered_model_alias("chorus", "champion")
    return registered


def ask(root: Path, source: str, more: str = "") -> Project:
    """Write a params.yaml whose family `mlp` asks for a source."""
    text = PARAMS.replace("{architecture: mlp,", f"{{architecture: mlp, warm_start: {source},")
    head, _, families = text.partition("families: {")
    families = "families:\n  " + families.strip().removesuffix("}") + "\n" + more
    (root / "params.yaml").write_text(head + families)
    return Project.load(root)


def pinned(root: Path, family: str = "mlp", refresh: bool = False) -> WarmStart:
    """Pin, and return what a family is pinned to then."""
    pin.run(Project.load(root), refresh)
    found = Project.load(root).params.families[family].warm_start
    assert found is not None
    return found


def crown(root: Path, number: str) -> None:
    Tracker(root).client.set_registered_model_alias("chorus", "champion", number)


def member(root: Path, name: str) -> Path:
    return root / "models" / "members" / "rung1" / name


def test_an_alias_is_followed_to_the_heaviest_member_of_the_architecture(root: Path, capsys: Any) -> None:
    ask(root, "champion", OTHERS)
    crown(root, "1")
    first = pinned(root)
    assert first == WarmStart(source="champion", version="1", content=tree_hash(member(root, FIRST)))
    assert "pin  mlp: champion (version 1), weights" in capsys.readouterr().out
    folder = root / ".warm" / str(first.content)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "discriminator.safetensors",
        "generator.safetensors",
    ]
    text = (root / "params.yaml").read_text()
    assert pinned(root) == first
    assert (root / "params.yaml").read_text() == text
    assert "as before" in capsys.readouterr().out

    crown(root, "2")
    second = pinned(root)
    assert (second.version, second.content) == ("2", tree_hash(member(root, SECOND)))
    assert f"before champion (version 1), weights {str(first.content)[:12]}" in capsys.readouterr().out
    assert [path.name for path in (root / ".warm").iterdir()] == [second.content]


def test_an_alias_that_leads_nowhere_yet_starts_without(root: Path, capsys: Any) -> None:
    project = ask(root, "champion", OTHERS)
    with pytest.raises(ChorusError, match="champion is not pinned; run `python -m pipeline pin`"):
        weights.provide(project, "mlp")
    nowhere = WarmStart(source="champion", version=None, content=None)
    assert pinned(root) == nowhere
    assert "mlp: champion leads to no weights of its architecture yet; it starts without" in capsys.readouterr().out
    assert weights.provide(Project.load(root), "mlp") is None
    crown(root, "1")
    assert pinned(root).version == "1"
    assert pinned(root, "gan") == nowhere  # the version draws from no dcgan
    assert weights.provide(Project.load(root), "other") is None


def test_the_same_weights_in_another_version_are_no_news(root: Path) -> None:
    ask(root, "champion")
    crown(root, "1")
    first = pinned(root)
    write_fused(root / "models" / "chosen", weights=(0.9, 0.1))
    write_judgement(root)
    write_verdict(root)
    register.run(Project.load(root))
    crown(root, "3")
    assert pinned(root) == first


def test_a_number_stays_and_one_that_is_not_there_is_refused(root: Path) -> None:
    ask(root, "2")
    assert pinned(root) == WarmStart(source="2", version="2", content=tree_hash(member(root, SECOND)))
    ask(root, "77")
    with pytest.raises(ChorusError, match="'chorus' has no version 77; it has: "):
        pinned(root)
    ask(root, "champion", "  gan: {architecture: dcgan, kimg: 1, width: 8, latent: 4, warm_start: 2}\n")
    with pytest.raises(ChorusError, match="version 2 of 'chorus' holds no member of the architecture 'dcgan'"):
        pinned(root)


def test_members_and_files_stay_what_they_were_until_they_are_refreshed(root: Path) -> None:
    folder = member(root, "mlp/r7")
    write_snapshot(folder / "000001000", 5)
    write_snapshot(folder / "000002000", 6)
    (folder / "history.json").write_text("[]")
    ask(root, "mlp/r7")
    last = pinned(root)
    assert last.content == tree_hash(folder / "000002000")
    ask(root, "mlp/r7/000001000")
    assert pinned(root).content == tree_hash(folder / "000001000")
    write_snapshot(folder / "000001000", 7)
    assert pinned(root).content != tree_hash(folder / "000001000")
    assert pinned(root, refresh=True).content == tree_hash(folder / "000001000")
    shutil.rmtree(folder)
    ask(root, "mlp/r7")
    with pytest.raises(ChorusError, match="mlp/r7 is no member of this checkout"):
        pinned(root)


def test_a_file_or_a_folder_on_disk(root: Path) -> None:
    ask(root, f"./models/members/rung1/{FIRST}")
    assert pinned(root).content == tree_hash(member(root, FIRST))
    ask(root, f"models/members/rung1/{FIRST}/generator.safetensors")
    content = pinned(root).content
    assert [path.name for path in (root / ".warm" / str(content)).iterdir()] == ["generator.safetensors"]
    assert list(weights.provide(Project.load(root), "mlp") or {}) == ["generator"]
    (root / "unreadable").symlink_to("/proc/self/mem")
    faults = {"./params.yaml": "no safetensors", "./nowhere": "no file of weights", "./unreadable": "cannot be read"}
    for source, message in faults.items():
        ask(root, source)
        with pytest.raises(ChorusError, match=message):
            pinned(root)


def test_lost_weights_are_fetched_again_and_others_are_refused(root: Path) -> None:
    ask(root, "champion")
    crown(root, "1")
    content = str(pinned(root).content)
    project = Project.load(root)
    shutil.rmtree(project.warm)
    crown(root, "2")  # a pin follows no alias
    found = weights.provide(project, "mlp")
    assert found is not None
    assert torch.equal(
        found["generator"]["layers.0.weight"],
        load_file(member(root, FIRST) / "generator.safetensors")["layers.0.weight"],
    )
    (project.warm / content / "generator.safetensors").write_bytes(
        (member(root, SECOND) / "generator.safetensors").read_bytes()
    )
    with pytest.raises(ChorusError, match=f"{content} was altered"):
        weights.provide(project, "mlp")

    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace(content, "0" * 64))
    with pytest.raises(ChorusError, match=r"no longer holds the weights that it is pinned to \(000000000000…\); run"):
        weights.provide(Project.load(root), "mlp")


def test_a_version_registered_without_discriminators_gives_its_generator(root: Path) -> None:
    folder = root / "alone"
    folder.mkdir()
    tracker = Tracker(root)
    run = tracker.client.get_model_version("chorus", "1").run_id
    kept = [file.path for file in tracker.client.list_artifacts(run, f"{versions.PARTNERS}/{FIRST}")]
    assert kept == [f"{versions.PARTNERS}/{FIRST}/discriminator.safetensors"]
    stored = (
        root / "mlartifacts" / next((root / "mlartifacts").glob(f"{run}/artifacts")).relative_to(root / "mlartifacts")
    )
    hidden = stored / "hidden"
    (stored / versions.PARTNERS).rename(hidden)
    try:
        assert versions.fetch_member(tracker, "chorus", "1", "mlp", folder)
    finally:
        hidden.rename(stored / versions.PARTNERS)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "generator.safetensors"]
    assert not versions.fetch_member(tracker, "chorus", "1", "dcgan", folder)


@contextmanager
def tampered(path: Path) -> Iterator[None]:
    """Put other weights of the same shape in the place of a file's."""
    kept = path.read_bytes()
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)
    try:
        yield
    finally:
        path.write_bytes(kept)


@pytest.mark.parametrize(("file", "words"), [("generator", "artefacts are damaged"), ("discriminator", "is damaged")])
@pytest.mark.parametrize("source", ["champion", "1"])
def test_a_tampered_version_is_no_start(root: Path, source: str, file: str, words: str) -> None:
    ask(root, source)
    crown(root, "1")
    tracker = Tracker(root)
    version = tracker.client.get_model_version("chorus", "1")
    package = Path(tracker.client.get_model_version_download_uri("chorus", "1").removeprefix("file://"))
    partners = root / "mlartifacts" / str(version.run_id) / "artifacts" / versions.PARTNERS
    folder = {"generator": package / "artifacts" / "fused" / "members", "discriminator": partners}[file]
    with (
        tampered(folder / FIRST / f"{file}.safetensors"),
        pytest.raises(ChorusError, match=f"version 1 of 'chorus' is no start: .*{words}.*; let the warm start name"),
    ):
        pinned(root)
    assert pinned(root).content == tree_hash(member(root, FIRST))


def test_a_discriminator_whose_hash_nobody_wrote_down_is_not_used(root: Path) -> None:
    tracker = Tracker(root)
    run, tag = tracker.client.get_model_version("chorus", "1").run_id, f"{versions.HASH}{FIRST}"
    said = tracker.client.get_run(run).data.tags[tag]
    tracker.client.delete_tag(run, tag)
    folder = root / "untold"
    folder.mkdir()
    assert versions.fetch_member(tracker, "chorus", "1", "mlp", folder)
    tracker.client.set_tag(run, tag, said)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "generator.safetensors"]


def test_an_alias_of_a_version_whose_artefacts_are_lost_is_refused(root: Path) -> None:
    project = ask(root, "champion")
    crown(root, "1")
    text = (root / "params.yaml").read_text()
    package = Path(Tracker(root).client.get_model_version_download_uri("chorus", "1").removeprefix("file://"))
    package.rename(package.with_name("hidden"))
    try:
        with pytest.raises(ChorusError, match="version 1 of 'chorus' is no start: its artefacts are lost; let the"):
            pin.run(project)
    finally:
        package.with_name("hidden").rename(package)
    assert (root / "params.yaml").read_text() == text


def test_an_alias_of_a_version_in_a_store_that_is_away_can_pass(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = ask(root, "champion")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    version = in_a_store_that_is_away(Tracker(root), "chorus")
    crown(root, version)
    try:
        with pytest.raises(MlflowException) as raised:
            pin.run(project)
    finally:
        Tracker(root).client.delete_model_version("chorus", version)
    assert status_of(raised.value) == CAN_PASS


def test_shares_of_a_recipe() -> None:
    def candidate(name: str) -> dict[str, Any]:
        return {"kind": "candidate", "id": f"a/{name}/1"}

    inner = {"kind": "mixture", "weights": [1, 3], "parts": [candidate("x"), candidate("y")]}
    recipe = {
        "kind": "mixture",
        "weights": [0.5, 0.5, 0.0],
        "parts": [
            {"kind": "vote", "source": inner, "critics": ["a/z/1"], "draws": 2},
            candidate("x"),
            candidate("w"),
        ],
    }
    assert versions.shares(recipe) == {"a/x/1": 0.625, "a/y/1": 0.375}
    assert versions.shares({"kind": "candidate", "id": "../../x"}) == {}


def test_the_key_of_a_training_follows_the_content_and_not_the_version(root: Path) -> None:
    def key(**pin: str | None) -> str:
        project = ask(root, f"{{source: champion, version: {pin['version']}, content: {pin['content']}}}")
        return training_key(project, "mlp", ["r0"], project.params.families["mlp"], "data")

    one, other = '"%s"' % ("1" * 64), '"%s"' % ("2" * 64)
    assert key(version='"1"', content=one) == key(version='"2"', content=one)
    assert len({key(version="null", content=value) for value in ("null", one, other)}) == 3


def test_training_starts_from_the_pinned_weights_and_says_what_it_left(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Unpinned it is refused. Two members of few steps still resemble the source, which holds no discriminator."""
    source = tmp_path / "start.safetensors"
    shutil.copyfile(member(root, FIRST) / "generator.safetensors", source)
    recipe = "architecture: mlp, replicas: 2, kimg: 0.1, lr: 0.00001, width: 8, latent: 4"
    ask(root, "1", f"  trained: {{{recipe}, warm_start: {source}}}\n")
    monkeypatch.chdir(root)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["train", "trained"]) == 2
        refusal = f"families.trained.warm_start: {source} is not pinned; run `python -m pipeline pin`"
        assert capsys.readouterr().err == f"chorus: {refusal}\n"
        assert main(["pin"]) == 0
        source.unlink()  # the weights were kept
        assert main(["train", "trained"]) == 0
    finally:
        signal.signal(signal.SIGTERM, handler)
    before = load_file(member(root, FIRST) / "generator.safetensors")
    said = capsys.readouterr().out
    assert (
        f"trained/r1: starts from {source}: generator {len(before)} of {len(before)} tensors, discriminator 0 of"
        in said
    )
    assert "left: discriminator/" in said
    for name in ("r0", "r1"):
        [snapshot] = member(root, f"trained/{name}").glob("0*")
        trained = load_file(snapshot / "generator.safetensors")
        assert torch.allclose(trained["layers.0.weight"], before["layers.0.weight"], atol=1e-3)
        assert not torch.equal(trained["layers.0.weight"], before["layers.0.weight"])
    [run] = Tracker(root).find(chorus_kind="member", mlflow_runName="trained/r0")
    assert run.data.tags["chorus.left"].startswith("discriminator/")
    wanted = Project.load(root).params.families["trained"].warm_start
    assert wanted is not None
    assert run.data.params["warm_start.content"] == wanted.content
    for folder in (member(root, "trained"), root / ".checkpoints"):
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("scheme", "starting"),
    [
        ("independent", ["r0", "r1"]),
        ("bagging", ["r0", "r1"]),
        ("joint", ["r0..r1"]),
        ("boosting", ["part0", "part1"]),
        ("cascade", ["r0"]),  # the second member is a refiner of the first one's images
    ],
)
def test_every_scheme_starts_from_the_pinned_weights(root: Path, scheme: str, starting: list[str], capsys: Any) -> None:
    family = (
        f"{{architecture: mlp, scheme: {scheme}, replicas: 2, kimg: 0.1, width: 8, latent: 4, warm_start: {FIRST}}}"
    )
    ask(root, "1", f"  trained: {family}\n")
    pin.run(Project.load(root))
    train.run(Project.load(root), "trained")
    said = capsys.readouterr().out.splitlines()
    names = [line.split(": ")[0].removeprefix("train trained/") for line in said if f": starts from {FIRST}: " in line]
    assert [name.split()[0] for name in names] == starting
    shutil.rmtree(member(root, "trained"))


def test_the_average_of_a_refiner_starts_as_without_a_warm_start(root: Path) -> None:
    family = f"{{architecture: mlp, scheme: cascade, replicas: 2, kimg: 0.1, width: 8, latent: 4, warm_start: {FIRST}}}"
    ask(root, "1", f"  trained: {family}\n")
    pin.run(Project.load(root))
    project = Project.load(root)
    runtime, manifest = set_up(project.params.compute), read_manifest(project.prepared)
    with Interruption() as interruption:
        planned = train.units(project, "trained", project.params.families["trained"], manifest, runtime, interruption)
        first, second = train.train_units(planned, runtime, Tracker(root), manifest, interruption)
    assert first.initial is not None
    assert second.initial is None
    assert (first.recipe.rampup, second.recipe.rampup) == (None, 0.05)
    shutil.rmtree(project.checkpoints)
