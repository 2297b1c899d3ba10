"""Weights of single images that bring their moments to those of the real images: a convex tilt.

A set of images with weights w is a mixture whose parts are single images, so its Fréchet distance F is convex in w and
known with its gradient (`pipeline.fusion.mixture`). What image x adds to it is a quadratic form of x's features, the
same for all images, whichever extractor looks (the Kantorovich potential between the two Gaussians):

    g(x) = xᵀ(I − T)x − 2xᵀ(μr − Tμ),    T = L (LᵀΣL)^−½ Lᵀ,    LLᵀ = Σr.

Minimise the mean of several extractors' F(w) + ε KL(w ‖ b) over wᵢ ≤ bᵢ/α, where b is what the sampler gives and α is
the share of its images that may be kept. By the KKT conditions the optimum is w = b min(1/α, exp(c − g/ε)): a density
ratio that rejection sampling can apply to fresh images, with as many free numbers as two covariances have.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.frechet import Matrix, Moments, Vector, Views, mean_distance, transport

TOLERANCE = 1e-5  # of the objective, relative: a step that gains less counts as none
PATIENCE = 3  # such steps in a row end the descent
LEAST_STEP = 1e-6


@dataclass(frozen=True)
class Form:
    """Σₑ xₑᵀCₑxₑ + sₑ·xₑ over extractors: curvatures d×d, slopes d."""

    curvatures: tuple[Matrix, ...]
    slopes: tuple[Vector, ...]

    def __call__(self, features: Sequence[Matrix]) -> Vector:
        """Map N×d for each extractor to N values."""
        total: Vector = np.zeros(len(features[0]))
        for x, curvature, slope in zip(features, self.curvatures, self.slopes, strict=True):
            total += ((x @ curvature) * x).sum(1) + x @ slope
        return total

    def times(self, factor: float) -> "Form":
        return Form(tuple(factor * c for c in self.curvatures), tuple(factor * s for s in self.slopes))

    def __add__(self, other: "Form") -> "Form":
        curvatures = tuple(map(np.add, self.curvatures, other.curvatures))
        return Form(curvatures, tuple(map(np.add, self.slopes, other.slopes)))


def weighted_views(features: Sequence[Matrix], weights: Vector) -> Views:
    """Return the moments of images N×d with weights N (any positive sum), without the bias of their estimate."""
    shares = weights / weights.sum()
    views = []
    for x in features:
        mean = shares @ x
        centred = x - mean
        covariance = (centred * shares[:, None]).T @ centred / max(1 - float(shares @ shares), 1e-12)
        views.append(Moments(mean, covariance))
    return tuple(views)


def potential(views: Views, real: Views) -> Form:
    """Return the gradient of the mean distance of images with these moments, as a function of one image."""
    curvatures, slopes = [], []
    for fake, own in zip(views, real, strict=True):
        moved, _ = transport(own.root, fake.covariance)
        curvatures.append(np.eye(len(moved)) - moved)
        slopes.append(2 * (moved @ fake.mean - own.mean))
    return Form(tuple(curvatures), tuple(slopes)).times(1 / len(views))


def fit_tilt(features: Sequence[Matrix], base: Vector, real: Views, strength: float, acceptance: float) -> Form:
    """Return t(x) = −g(x)/ε at the optimum: the logarithm of the density ratio up to a constant (see `bound`).

    features: N×d for each extractor. base: b, N, adds up to 1. real: moments of the real images. strength: ε, above 0,
    in units of the distance; the smaller, the nearer to the real moments and the farther from what the sampler gives.
    acceptance: α, in (0, 1]. Mirror descent in the dual: every iterate t is such a form, and its weights the ones that
    rejection by it gives, so that stopping early delivers what was measured.
    """

    def objective(form: Form) -> tuple[float, Form]:
        scores = form(features)
        if not np.isfinite(scores).all():
            return np.inf, form
        weights = base * np.exp(np.minimum(scores - bound(scores, base, acceptance), 0))
        weights /= weights.sum()
        views, held = weighted_views(features, weights), weights > 0
        divergence = float(weights[held] @ np.log(weights[held] / base[held]))
        return mean_distance(views, real) + strength * divergence, potential(views, real)

    form = Form(
        tuple(np.zeros((x.shape[1], x.shape[1])) for x in features), tuple(np.zeros(x.shape[1]) for x in features)
    )
    value, gradient = objective(form)
    step, settled = 1.0, 0
    while settled < PATIENCE and step > LEAST_STEP:
        trial = form.times(1 - step) + gradient.times(-step / strength)
        trial_value, trial_gradient = objective(trial)
        # What is no number is no gain either.
        if not trial_value <= value:
            step /= 2
            continue
        settled = settled + 1 if value - trial_value <= TOLERANCE * abs(value) else 0
        form, value, gradient = trial, trial_value, trial_gradient
        step = min(step * 1.3, 1.0)
    return form


def bound(scores: Vector, base: Vector, acceptance: float) -> float:
    """Return c with Σ bᵢ min(1, exp(tᵢ − c)) = α: so many of the sampler's images are kept with this bound.

    scores: t, N. base: b, N, adds up to 1. acceptance: α, in (0, 1].
    """
    low, high = float(scores.min()) - 1.0, float(scores.max()) - np.log(acceptance) + 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if base @ np.exp(np.minimum(scores - middle, 0)) > acceptance:
            low = middle
        else:
            high = middle
    return low
