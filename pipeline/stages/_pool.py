"""The pool of candidates and the halves of `val`, as every stage that takes decisions reads them."""

import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ChorusError
from pipeline.evaluation import store
from pipeline.evaluation.frechet import Matrix, Views
from pipeline.evaluation.ruler import Real, Ruler
from pipeline.files import file_hash, read_json, tree_hash
from pipeline.fusion.strategies._base import Candidate
from pipeline.project import Project
from pipeline.racing.branches import Branching, compare
from pipeline.randomness import derive_seed
from pipeline.stages._failures import failures, in_words


def halves_of_val(project: Project, rulers: Sequence[Ruler]) -> tuple[Real, Real]:
    """Return two disjoint parts of `val`: to fit on, and to choose on."""
    fit, choose = rows_of_halves(project, len(store.read_features(project.reference, "val", rulers[0].extractor)))
    features = (store.read_features(project.reference, "val", ruler.extractor).values for ruler in rulers)
    seen = tuple(ruler.relative(values) for ruler, values in zip(rulers, features, strict=True))
    real = Real(seen, store.read_labels(project.reference, "val"))
    return real.take(fit), real.take(choose)


def rows_of_halves(project: Project, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which of the `count` images of `val` there are to fit on, and which to choose on."""
    order = np.random.default_rng(derive_seed(project.params.seed, "fuse", "halves")).permutation(count)
    cut = round(count * project.params.fusion.fit_fraction)
    if min(cut, count - cut) < 2:
        raise ChorusError(f"val has {count} images: too few to fit on one part and choose on another")
    return order[:cut], order[cut:]


def remove_former(project: Project, stage: str, rungs: Iterable[int] | None = None) -> None:
    """Remove what families and rungs no longer in params.yaml left in the folders that this stage depends on.

    DVC leaves the outputs of a stage that is gone where they are, and they would stay in the hashes of those folders.
    Its cache still holds them. Only folders that a stage of ours wrote are touched. rungs: which to look at (all).
    """
    kept = {f"rung{rung}" for rung in project.rungs}
    looked_at = ["rung*"] if rungs is None else [f"rung{rung}" for rung in rungs]
    written = [
        (path.parent, path.parent.name in project.params.families and path.parent.parent.name in kept)
        for folder, mark in ((project.members, "family.json"), (project.evaluation, "evaluation.json"))
        for rung in looked_at
        for path in sorted(folder.glob(f"{rung}/*/{mark}"))
    ]
    if rungs is None:
        races = sorted((project.evaluation / "race").glob("rung*/table.json"))
        written += [(path.parent, path.parent.name in kept) for path in races]
    for folder, needed in written:
        if not needed:
            print(f"{stage}  removes {folder.relative_to(project.root)}: not in params.yaml any more", flush=True)
            shutil.rmtree(folder)


def read_pool(project: Project, rulers: Sequence[Ruler]) -> tuple[Candidate, ...]:
    """Return the candidates of all rungs and families.

    Raises `ChorusError` for an evaluation of other weights, and where fewer than `fusion.min_members` have any.
    """
    pool = []
    for rung in project.rungs:
        for family in project.params.families:
            pool += read_family(project, rulers, family, rung)
    # A sibling stands for no member that failed: it is the continuation of another one.
    left = {candidate.member for candidate in pool} - siblings_of(project)
    wanted = project.params.fusion.min_members
    if len(left) < wanted:
        failed = in_words(failures(project)) or "none failed"
        raise ChorusError(
            f"{len(left)} members have candidates, fusion.min_members asks for {wanted} (failed: {failed}); "
            "change what fails, add replicas, or lower fusion.min_members"
        )
    return tuple(pool)


def siblings_of(project: Project) -> set[str]:
    """Return what members divided into in the last rung of a race, as FAMILY/MEMBER."""
    last = project.rungs[-1]
    rosters = {f: read_json(project.family_folder(f, last) / "family.json") for f in project.params.families}
    return {f"{family}/{name}" for family, roster in rosters.items() for name in roster.get("siblings", [])}


def without_worse_siblings(
    project: Project, pool: tuple[Candidate, ...], real: Real
) -> tuple[tuple[Candidate, ...], list[Branching]]:
    """Return the pool without siblings that are no better than the plain continuations, and the comparisons.

    real: the part of `val` that everything is fitted on; one half of it finds the mixtures, the other measures them.
    """
    siblings, last = siblings_of(project), project.rungs[-1]
    if not siblings:
        return pool, []
    rest: list[Views] = []
    plain, branched = defaultdict(list), defaultdict(list)
    for candidate in pool:
        family, _, _ = candidate.id.split("/")
        if candidate.member in siblings:
            branched[family].append(candidate.views)
        elif (project.family_folder(family, last).parent / candidate.id).is_dir():
            plain[family].append(candidate.views)
        else:
            rest.append(candidate.views)
    rows = np.arange(len(real))
    found = compare(rest, plain, branched, real.take(rows[::2]).views, real.take(rows[1::2]).views)
    worse = {comparison.family for comparison in found if not comparison.kept}
    kept = [c for c in pool if c.member not in siblings or c.id.split("/")[0] not in worse]
    return tuple(kept), found


def read_family(project: Project, rulers: Sequence[Ruler], family: str, rung: int) -> list[Candidate]:
    """Return a family's candidates of one rung."""
    folder, weights = project.evaluation_folder(family, rung), project.family_folder(family, rung)
    evaluation = store.read_evaluation(folder)
    if evaluation["models_hash"] != tree_hash(weights):
        raise ChorusError(
            f"{folder.relative_to(project.root)} measured other weights than {weights.relative_to(project.root)} "
            "holds; run dvc repro"
        )
    found = []
    for entry in evaluation["candidates"]:
        read = partial(relative_features, rulers, folder, entry["id"])
        critic = weights.parent / entry["id"] / "discriminator.safetensors"
        judge = file_hash(critic) if critic.exists() else None
        asked = store.read_asked(folder, entry["id"])
        found.append(Candidate.of(entry["id"], judge, read, entry["classes"], asked))
    return found


def relative_features(rulers: Sequence[Ruler], folder: Path, candidate: str) -> tuple[Matrix, ...]:
    """Return the features of a candidate's samples as the rulers see them; `folder` is where its evaluation lies."""
    return tuple(
        ruler.relative(store.candidate_features(folder, candidate, ruler.extractor).values) for ruler in rulers
    )
