"""The Fréchet distance of infinitely many generated images.

Chong and Forsyth, "Effectively unbiased FID and Inception score and where to find them", 2020 (arXiv:1911.07023):
the distance grows linearly with 1/N, at a slope that differs from generator to generator, so a line through
the distances of several N is followed to 1/N = 0.
"""

import numpy as np

from pipeline.evaluation import frechet
from pipeline.evaluation.frechet import Moments
from pipeline.evaluation.intervals import IMAGES_A_DIMENSION
from pipeline.evaluation.ruler import Ruler

PARTS = 4


def name_of(ruler: Ruler) -> str:
    """Name the extrapolated distance after the ruler's own."""
    return f"fdinf{ruler.dims or ''}_{ruler.extractor}"


def enough(generated: int, dims: int) -> bool:
    """Tell whether the smallest parts are large enough for the distance to be linear in 1/N."""
    return generated >= PARTS * max(IMAGES_A_DIMENSION * dims, 2)


def at_infinity(fake: np.ndarray, real: Moments, seed: int = 0) -> float:
    """Return the distance of generated samples N×d, extrapolated; it can be negative where there is next to none.

    The paper takes random subsets that overlap. Here the samples are divided at random into one, two, three and four
    parts: the mean over k parts of N/k is as sure for every k, so the line through them weighs all alike, and no sample
    is left out of any. The real images' own number is left as it is, as in the paper.
    """
    order = np.random.default_rng(seed).permutation(len(fake))
    sizes, distances = [], []
    for count in range(1, PARTS + 1):
        parts = np.array_split(order, count)
        sizes.append(np.mean([1 / len(rows) for rows in parts]))
        distances.append(np.mean([frechet.distance(frechet.moments(fake[rows]), real) for rows in parts]))
    _, intercept = np.polyfit(sizes, distances, 1)
    return float(intercept)
