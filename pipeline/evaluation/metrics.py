"""Distances between generated and real features: by torch-fidelity's own functions, or equal to them and faster.

Every name ends in the extractor's, because the numbers of two extractors cannot be compared; `fid` alone is reserved
for the Inception network's 2048 features (Heusel et al., arXiv:1706.08500).
"""

from dataclasses import asdict

import numpy as np
import torch
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_featuresdict_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric

from pipeline.evaluation import extrapolation, frechet
from pipeline.evaluation.features import Features
from pipeline.evaluation.neighbours import covered, equally_many, manifold, some
from pipeline.evaluation.ruler import Ruler, frechet_name

# torch-fidelity's defaults, smaller where a set has fewer images
KID_SUBSET = 1000
ISC_SPLITS = 10
NEIGHBOUR_IMAGES = 10_000  # metrics by nearest neighbours compare all pairs, so no more than these of each set


def measure(fake: Features, real: Features, ruler: Ruler, *, neighbours: int = 3, seed: int = 0) -> dict[str, float]:
    """Return each metric of generated against real features of the ruler's extractor, by name.

    The Fréchet distance in all features and, where the ruler keeps fewer, in its dimensions, and there also
    extrapolated to infinitely many generated images (fdinf; Chong and Forsyth, arXiv:1911.07023) where they are enough
    for that; KID (Bińkowski et al., arXiv:1801.01401, cubic kernel, mean over 100 subsets of at most 1000 images); with
    logits the Inception-style score of the generated images (Salimans et al., arXiv:1606.03498); precision and recall
    (Kynkäänniemi et al., arXiv:1904.06991), density and coverage (Naeem et al., arXiv:2002.09797; coverage of equally
    many generated as real images). Both sets need more than `neighbours` images, at least 2, and finite features.
    """
    name = ruler.extractor
    fake_values, real_values = _tensor(fake.values), _tensor(real.values)
    result = frechet_distances(fake, real, ruler, seed)
    subset = min(KID_SUBSET, len(fake), len(real))
    kid = kid_features_to_metric(fake_values, real_values, kid_subset_size=subset, rng_seed=seed % 2**32, verbose=False)
    result[f"kid_{name}"] = kid[KEY_METRIC_KID_MEAN]
    if fake.logits is not None:
        logits = {"logits": _tensor(fake.logits)}
        splits = min(ISC_SPLITS, len(fake))
        score = isc_featuresdict_to_metric(logits, "logits", isc_splits=splits, rng_seed=seed % 2**32, verbose=False)
        result[f"isc_{name}"] = score[KEY_METRIC_ISC_MEAN]
    among = among_neighbours(fake_values, real_values, neighbours, seed)
    return result | {f"{kind}_{name}": value for kind, value in among.items()}


def frechet_distances(fake: Features, real: Features, ruler: Ruler, seed: int) -> dict[str, float]:
    """Return the Fréchet distance in the ruler's dimensions, extrapolated there too, and in all features."""
    target, name = ruler.see(real.moments), frechet_name(ruler.extractor, None)
    result = {ruler.name: frechet.distance(ruler.see(fake.moments), target)}
    if extrapolation.enough(len(fake), len(target.mean)):
        values = ruler.project(fake.values)
        result[extrapolation.name_of(ruler)] = extrapolation.at_infinity(values, target, seed)
    return result if name in result else result | {name: frechet.distance(fake.moments, real.moments)}


def among_neighbours(fake: torch.Tensor, real: torch.Tensor, neighbours: int, seed: int) -> dict[str, float]:
    """Return precision, recall, density and coverage of features N×D, of at most `NEIGHBOUR_IMAGES` of each set."""
    few_fakes, few_reals = (values[some(len(values), NEIGHBOUR_IMAGES, seed)] for values in (fake, real))
    found = manifold(few_fakes, few_reals, neighbours)
    fakes, reals = equally_many(len(fake), len(real), NEIGHBOUR_IMAGES, seed)
    coverage = covered(fake[fakes], real[reals], neighbours).double().mean()
    return {**asdict(found), "coverage": float(coverage)}


def warnings_of(fake: Features, real: Features, ruler: Ruler) -> list[str]:
    """Say which Fréchet distances of `measure` are mostly bias: a set has fewer images than there are features."""
    images, found = min(len(fake), len(real)), []
    for dims in [ruler.dims, None] if ruler.dims else [None]:
        features = dims or fake.values.shape[1]
        if images < features:
            name = frechet_name(ruler.extractor, dims)
            found.append(f"{name}: {images} images for {features} features; use kid_{ruler.extractor} instead")
    return found


def _tensor(values: np.ndarray) -> torch.Tensor:
    # A copy, because the stored arrays are read-only memory maps.
    return torch.from_numpy(np.array(values, dtype=np.float32))
