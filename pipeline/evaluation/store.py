"""The files of `data/reference` and `evaluation/rungN/FAMILY`: the one place that knows their layout."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ChorusError
from pipeline.evaluation.features import Features
from pipeline.evaluation.ruler import Ruler, frechet_name
from pipeline.files import read_array, read_json, write_array

SCHEMA = 1


def write_features(stem: Path, features: Features) -> None:
    """Write STEM.npy and, where there are logits, STEM_logits.npy; `stem` ends in the extractor's name."""
    write_array(stem.parent / f"{stem.name}.npy", features.values)
    if features.logits is not None:
        write_array(stem.parent / f"{stem.name}_logits.npy", features.logits)


def _read(stem: Path) -> Features:
    logits = stem.parent / f"{stem.name}_logits.npy"
    return Features(read_array(stem.parent / f"{stem.name}.npy"), read_array(logits) if logits.exists() else None)


def _read_versioned(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_json(path)
    if content.get("schema") != SCHEMA:
        raise ChorusError(f"{path} has schema {content.get('schema')}, this code reads {SCHEMA}: run `dvc repro`")
    return content


def read_reference(reference: Path) -> dict[str, Any]:
    """Read `reference.json`: schema, labelled, selection, judges, extractors, rulers, floors."""
    return _read_versioned(reference / "reference.json")


def read_features(reference: Path, split: str, name: str) -> Features:
    """Return the features (memory-mapped) of the real images of `split` (train, val or gate)."""
    return _read(reference / "features" / split / name)


def write_labels(reference: Path, split: str, labels: np.ndarray) -> None:
    """Write the classes of the real images of `split`."""
    write_array(reference / "labels" / f"{split}.npy", labels)


def read_labels(reference: Path, split: str) -> NDArray[np.int64] | None:
    """Return the classes of the real images of `split`, None where they have none."""
    path = reference / "labels" / f"{split}.npy"
    return np.array(read_array(path), dtype=np.int64) if path.exists() else None


def write_ruler(reference: Path, ruler: Ruler) -> None:
    """Write the arrays of a ruler that has any; which dimensions it keeps is said in `reference.json`."""
    if ruler.mean is not None and ruler.basis is not None:
        write_array(reference / "rulers" / f"{ruler.extractor}_mean.npy", ruler.mean)
        write_array(reference / "rulers" / f"{ruler.extractor}_basis.npy", ruler.basis)


def read_ruler(reference: Path, extractor: str) -> Ruler:
    """Return an extractor's ruler."""
    content = read_reference(reference)
    try:
        facts = content["rulers"][extractor]
    except KeyError:
        raise ChorusError(
            f"{reference} holds no extractor '{extractor}'; it has: {', '.join(content['rulers'])}"
        ) from None
    dims = facts["dims"]
    arrays = [
        np.array(read_array(reference / "rulers" / f"{extractor}_{part}.npy"))
        for part in ("mean", "basis")
        if dims is not None
    ]
    return Ruler(extractor, dims, frechet_name(extractor, dims), facts["spread"], *arrays)


def deciding_rulers(reference: Path) -> list[Ruler]:
    """Return the rulers of the selection extractors, which take the decisions together."""
    return [read_ruler(reference, name) for name in read_reference(reference)["selection"]]


def read_evaluation(folder: Path) -> dict[str, Any]:
    """Read `evaluation/rungN/FAMILY/evaluation.json`: schema, family, models_hash, samples, candidates."""
    return _read_versioned(folder / "evaluation.json")


def candidate_stem(folder: Path, candidate: str, extractor: str) -> Path:
    """Return where a candidate's features lie (without `.npy`); `folder` is that of its family and rung."""
    _, member, snapshot = candidate.split("/")
    return folder / member / snapshot / extractor


def candidate_features(folder: Path, candidate: str, extractor: str) -> Features:
    """Return the features (memory-mapped) of a candidate's samples; `candidate` is FAMILY/MEMBER/SNAPSHOT."""
    return _read(candidate_stem(folder, candidate, extractor))


def write_asked(folder: Path, candidate: str, classes: np.ndarray) -> None:
    """Write the classes (int64 N) that the samples of a conditional candidate were asked for; folder as above."""
    write_array(_asked(folder, candidate), classes)


def read_asked(folder: Path, candidate: str) -> NDArray[np.int64] | None:
    """Return the classes that a candidate's samples were asked for, None where it is unconditional."""
    path = _asked(folder, candidate)
    return np.array(read_array(path), dtype=np.int64) if path.exists() else None


def _asked(folder: Path, candidate: str) -> Path:
    return candidate_stem(folder, candidate, "asked").with_suffix(".npy")
