"""Every registered architecture by every scheme, through the stage itself.

Interrupted again and again it leaves the same bytes; its members can be drawn from, and know classes as declared.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

import pipeline.models
from pipeline.data.dataset import read_manifest
from pipeline.errors import ChorusError
from pipeline.files import read_json, tree_hash, write_json
from pipeline.fusion.samplers import CandidateSampler, draw, passes_of
from pipeline.packaged.folder import write_content
from pipeline.params import Budget, Family, parse_params, registered
from pipeline.project import FIRST, Project
from pipeline.recipes import load_sampler
from pipeline.stages import evaluate, train
from pipeline.tracking import Tracker
from pipeline.training import loop
from pipeline.training.cost import flops_per_image
from pipeline.training.schemes import classifier
from pipeline.training.schemes.cascade import refined
from pipeline.weights import load_discriminator, load_generator
from tests.factories import write_prepared

ARCHITECTURES = registered(pipeline.models)
SCHEMES = get_args(Family.model_fields["scheme"].annotation)
RECIPE: dict[str, Any] = {"kimg": 0.024, "batch": 8, "latent": 4, "width": 4, "replicas": 2}
STEPS = 3  # of each member
EACH = 2  # steps that a process takes before it is interrupted


def possible(architecture: str, scheme: str) -> bool:
    try:
        Family(architecture=architecture, scheme=scheme, **RECIPE)
    except ValueError:
        return False
    return True


PAIRS = [(name, scheme) for name in ARCHITECTURES for scheme in SCHEMES if possible(name, scheme)]


def name_of(architecture: str, scheme: str, conditional: bool) -> str:
    return f"{architecture}-{scheme}" + "-by-class" * conditional


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with prepared data and a family of each kind; none of them is trained."""
    root = tmp_path_factory.mktemp("schemes")
    write_prepared(root / "data" / "prepared", n_train=40)
    families = {
        name_of(architecture, scheme, conditional): {
            **RECIPE,
            "architecture": architecture,
            "scheme": scheme,
            "conditional": conditional,
            "snapshots": 2 if scheme == "boosting" else 1,
        }
        for architecture, scheme in PAIRS
        for conditional in (False, True)
    }
    write_json(
        root / "params.yaml",
        {
            "seed": 1,
            "data": {"source": "digits", "watch": "unused", "size": 8},
            "compute": {"device": "cpu", "precision": "fp32"},
            "families": families,
        },
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
        patch.setenv("CHORUS_CHECKPOINT_SECONDS", "3600")  # checkpoints at interruptions alone
        yield Project(root, parse_params((root / "params.yaml").read_text()))


def interrupting(steps: Iterator[Any], after: int) -> Iterator[Any]:
    """The same steps; this process gets a SIGTERM during step `after`."""
    for done, step in enumerate(steps, 1):
        if done == after:
            os.kill(os.getpid(), signal.SIGTERM)
        yield step


def interrupted(project: Project, family: str) -> int:
    """Train with an interruption every `EACH` steps of any member; return how many there were."""
    plain, left = loop.train, [EACH]

    def counted(*arguments: Any) -> Iterator[Any]:
        for state in plain(*arguments):
            left[0] -= 1
            yield from interrupting(iter([state]), 1 if left[0] == 0 else 0)

    for stops in range(100):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "train", counted)
            left[0] = EACH
            try:
                train.run(project, family)
            except SystemExit:
                continue
        return stops
    raise AssertionError("it never ends")


def test_only_architectures_that_train_by_a_discriminator_alone_take_every_scheme() -> None:
    refused = {(name, scheme) for name in ("flow", "vae", "vaegan") for scheme in ("cascade", "joint")}
    assert set(PAIRS) == {(name, scheme) for name in ARCHITECTURES for scheme in SCHEMES} - refused


@pytest.mark.parametrize("conditional", [False, True], ids=["plain", "by class"])
@pytest.mark.parametrize(("architecture", "scheme"), PAIRS)
def test_trains_resumes_and_is_drawn_from(architecture: str, scheme: str, conditional: bool, project: Project) -> None:
    family = name_of(architecture, scheme, conditional)
    folder = project.family_folder(family)
    train.run(project, family)
    unbroken = tree_hash(folder)
    if conditional:
        total = STEPS if scheme == "joint" else STEPS * RECIPE["replicas"]
        assert interrupted(project, family) == total // EACH
        assert tree_hash(folder) == unbroken
    assert not (project.checkpoints / family).exists()

    members = project.params.families[family].members
    assert read_json(folder / "family.json")["members"] == list(members)
    ids = evaluate.candidates_of(project, family, FIRST)
    assert [name.split("/")[1] for name in ids] == (["boosted"] * 2 if scheme == "boosting" else list(members))
    pictures = [sample(project, name, conditional) for name in ids]
    assert not torch.equal(pictures[0], pictures[1])


def sample(project: Project, candidate: str, conditional: bool) -> torch.Tensor:
    """Draw from a candidate, also by class where it knows classes; its critic, if any, judges each image."""
    sampler = CandidateSampler(load_generator(project.snapshot(candidate))[0])
    images = draw(sampler, 9, seed=0)
    assert images.shape == (9, 1, 8, 8)
    assert torch.equal(images, draw(sampler, 9, seed=0))
    labels = torch.arange(9) % 3
    if conditional:
        assert draw(sampler, 9, seed=0, labels=labels).shape == (9, 1, 8, 8)
    else:
        with pytest.raises(ChorusError, match="members are unconditional"):
            draw(sampler, 9, seed=0, labels=labels)
    if (project.snapshot(candidate) / "discriminator.safetensors").exists():
        critic = load_discriminator(project.snapshot(candidate))
        assert critic(images / 127.5 - 1, labels if conditional else None).shape == (9,)
    return images


def test_the_weighing_of_images_can_be_interrupted_too(project: Project) -> None:
    family = name_of("mlp", "boosting", False)
    train.run(project, family)
    unbroken = tree_hash(project.family_folder(family))
    plain = classifier.train_classifier
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.stages._boosting.train_classifier", lambda *a: interrupting(plain(*a), 1))
        with pytest.raises(SystemExit) as end:
            train.run(project, family)
    assert end.value.code == 143
    assert not list((project.checkpoints / family / "part1").rglob("*.npy"))
    train.run(project, family)
    assert tree_hash(project.family_folder(family)) == unbroken


def test_a_boosted_member_is_the_mixture_of_its_parts_on_one_course(project: Project) -> None:
    family = name_of("mlp", "boosting", False)
    train.run(project, family)
    seen = STEPS * RECIPE["batch"]
    folder = project.family_folder(family) / "boosted"
    snapshots = sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert snapshots == [f"{seen:09d}", f"{2 * seen:09d}"]
    model = read_json(folder / snapshots[1] / "config.json")["model"]
    assert (model["architecture"], model["weights"], len(model["parts"])) == ("mixture", [0.5, 0.5], 2)
    rows = read_json(folder / "history.json")
    assert [row["nimg"] for row in rows] == list(range(8, 2 * seen + 1, 8))
    assert rows[0]["images_share"] == 1
    assert 0 < rows[-1]["images_share"] <= 1
    tracker = Tracker(project.root)
    (run, *_) = tracker.find(chorus_member=tree_hash(folder))
    assert (run.info.run_name, run.data.tags["chorus.kind"]) == (f"{family}/boosted", "member")


def test_a_cascade_keeps_what_it_refines(project: Project) -> None:
    family = name_of("dcgan", "cascade", True)
    train.run(project, family)
    first, second = (
        load_generator(project.snapshot(name))[0].state_dict() for name in evaluate.candidates_of(project, family, 1)
    )
    kept = {name.removeprefix("first."): value for name, value in second.items() if name.startswith("first.")}
    assert kept.keys() == first.keys()
    assert all(torch.equal(kept[name], first[name]) for name in first)


def test_a_budget_of_operations_counts_what_a_cascade_passes_through(project: Project) -> None:
    family, manifest = name_of("dcgan", "cascade", False), read_manifest(project.prepared)
    recipe = project.params.families[family]
    budget = Budget(tflop=0.1, families=1)
    alone = Project(project.root, project.params.model_copy(update={"families": {family: recipe}, "budget": budget}))
    shared, roster = train.in_first_rung(alone, family, manifest)
    plain = train.model_config(recipe, manifest)
    first, second = (flops_per_image(recipe, config) for config in (plain, refined(plain, 1)))
    assert second > 1.2 * first
    assert roster["kimg"] == shared.kimg
    assert shared.kimg * 1000 * (first + second) == pytest.approx(0.1e12)


@pytest.mark.parametrize("budget", [None, Budget(kimg=1.0, families=1)])
def test_a_conditional_family_needs_images_with_classes(
    project: Project, budget: Budget | None, tmp_path: Path
) -> None:
    family = name_of("mlp", "independent", True)
    changes = {"families": {family: project.params.families[family]}, "budget": budget}
    unlabelled = Project(tmp_path, project.params.model_copy(update=changes))
    write_prepared(unlabelled.prepared, n_train=40, classes=None)
    with pytest.raises(ChorusError, match="`conditional: true` needs classes, and these images have none"):
        train.run(unlabelled, family)


def test_a_bagged_member_sees_its_own_bootstrap(project: Project) -> None:
    """With equal random numbers, only the images make a bagged member another one than an independent."""
    families = [name_of("mlp", scheme, False) for scheme in ("bagging", "independent")]
    recipes = [project.params.families[name] for name in families]
    assert recipes[0].model_dump(exclude={"scheme"}) == recipes[1].model_dump(exclude={"scheme"})
    renamed = project.params.model_copy(update={"families": {"same": recipes[0]}})
    train.run(Project(project.root, renamed), "same")
    bagged = tree_hash(project.family_folder("same") / "r0")
    renamed = project.params.model_copy(update={"families": {"same": recipes[1]}})
    train.run(Project(project.root, renamed), "same")
    assert tree_hash(project.family_folder("same") / "r0") != bagged


def test_votes_and_packages_take_composites_as_any_member(project: Project, tmp_path: Path) -> None:
    """A boosted member has no critic of its own and may be a source; a cascade brings its own."""
    ids = {}
    for scheme in ("boosting", "cascade"):
        family = name_of("dcgan", scheme, True)
        train.run(project, family)
        ids[scheme] = evaluate.candidates_of(project, family, FIRST)[-1]
    assert not (project.snapshot(ids["boosting"]) / "discriminator.safetensors").exists()
    parts = [{"kind": "candidate", "id": name} for name in ids.values()]
    mixture = {"kind": "mixture", "weights": [0.5, 0.5], "parts": parts}
    recipe = {"kind": "vote", "source": mixture, "critics": [ids["cascade"]], "draws": 2}
    sampler = load_sampler(recipe, project.snapshot)
    assert sampler.classes == 3
    critic = sampler.critics[0]
    assert sampler.cost == pytest.approx(2 * (0.5 * 1 + 0.5 * 2 + passes_of(critic, sampler.source)))
    wanted = draw(sampler, 6, seed=0, labels=torch.arange(6) % 3)

    fused = tmp_path / "fused"
    write_json(fused / "recipe.json", {"recipe": recipe})
    for name in ids.values():
        (fused / "members" / name).parent.mkdir(parents=True)
        (fused / "members" / name).symlink_to(project.snapshot(name))
    write_content(fused, tmp_path / "content")
    again = load_sampler(
        read_json(tmp_path / "content" / "model.json")["recipe"], (tmp_path / "content/members").joinpath
    )
    assert torch.equal(draw(again, 6, seed=0, labels=torch.arange(6) % 3), wanted)
