"""The strategy `ratio`: a density ratio on what all deciding extractors see, on top of the weighted mixture."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.evaluation.frechet import distance, moments
from pipeline.evaluation.ruler import Real, Ruler, fit_ruler
from pipeline.fusion.kinds import Loader, build_sampler
from pipeline.fusion.samplers import CandidateSampler, draw
from pipeline.fusion.sights import outputs_of
from pipeline.fusion.strategies._base import Candidate, NotApplicableError, Problem, strategy
from pipeline.fusion.tilt import weighted_views
from pipeline.params import Fusion
from tests.fusion.factories import material

BASIS = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
RULERS = (
    Ruler("classifier", None, "fd_classifier", 2.0),
    Ruler("selfsup", 2, "fd2_selfsup", 3.0, np.array([0.1, 0.2, 0.3]), BASIS),
)


def drawn(rng, n, loc, scale=1.0):
    """What the two extractors put out for n images, N×2 and N×3."""
    x = rng.normal(loc, scale, size=(n, 2))
    return x, np.concatenate([x[:, ::-1] * 2, rng.normal(size=(n, 1))], 1)


def problem(rulers=RULERS, least=0.25, count=3000, given=None, fake=1.5):
    rng = np.random.default_rng(0)
    pool = []
    for name, loc in (("a/r0/1", 0.7), ("b/r0/1", -0.7)):
        seen = tuple(r.relative(v) for r, v in zip(RULERS, drawn(rng, count, loc, fake), strict=True))
        pool.append(Candidate(name, Real(seen).views, None, lambda seen=seen: seen, 0))
    real = Real(tuple(r.relative(v) for r, v in zip(RULERS, drawn(rng, count, 0.0), strict=True)))
    return Problem.of(tuple(pool), real, Fusion(min_acceptance=least), 1, given, rulers)


@pytest.mark.parametrize("least", [0.5, 0.25])
def test_fresh_images_come_nearer_by_every_extractor_at_the_stated_acceptance(least):
    given = problem(least=least)
    fusion = strategy("ratio")(given)
    acceptance = fusion.evidence["acceptance"]
    assert least <= acceptance
    assert fusion.evidence["calibrated"] < 0.8 * fusion.evidence["calibrated_mixture"]
    assert fusion.recipe["source"] == strategy("weighted")(given).recipe
    ratio = fusion.companions["ratios/ratio"].network
    assert ratio.extractors == ("classifier", "selfsup")
    rng = np.random.default_rng(5)
    weights = fusion.evidence["weights"]
    raw = [drawn(rng, round(8000 * weights[name]), loc, 1.5) for name, loc in (("a/r0/1", 0.7), ("b/r0/1", -0.7))]
    outputs = [np.concatenate(views) for views in zip(*raw, strict=True)]
    kept = ratio(torch.from_numpy(np.concatenate(outputs, 1))).clamp(max=0).exp().numpy()
    assert kept.mean() == pytest.approx(acceptance, abs=0.03)
    seen = [r.relative(x) for r, x in zip(RULERS, outputs, strict=True)]
    views = zip(weighted_views(seen, kept), map(moments, seen), given.real.views, strict=True)
    for tilted, plain, real in views:
        assert distance(tilted, real) < 0.75 * distance(plain, real)


def test_tries_run_out_for_one_image_in_a_thousand():
    recipe = strategy("ratio")(problem()).recipe
    assert (1 - recipe["acceptance"]) ** recipe["tries"] < 1e-3


def looking(count=300, judges=(), names=("a/r0/1", "b/r0/1")):
    """A problem with networks: generators, and the untrained extractors that decide on `count` images."""
    given = replace(material(n_train=count, n_fit=count), judges=judges)
    networks = [given.extractor(name)[1] for name in ("classifier", "selfsup")]
    real, train = ([outputs_of(network, images()[0]) for network in networks] for images in (given.fit, given.train))
    rulers = tuple(fit_ruler(name, seen, None) for name, seen in zip(("classifier", "selfsup"), train, strict=True))
    pool = []
    for name in names:
        images = draw(CandidateSampler(given.generator(name)), count, seed=5)
        seen = tuple(r.relative(outputs_of(n, images)) for r, n in zip(rulers, networks, strict=True))
        pool.append(Candidate(name, Real(seen).views, None, lambda seen=seen: seen, 0))
    features = Real(tuple(r.relative(seen) for r, seen in zip(rulers, real, strict=True)))
    return Problem.of(tuple(pool), features, Fusion(), 1, given, rulers)


def test_images_are_looked_at_with_maps_and_pixels_too():
    given = looking()
    fusion = strategy("ratio")(given)
    assert list(fusion.recipe["companions"]) == ["ratio", "classifier-maps", "selfsup", "pixels"]
    kinds = {name: made.config.get("kind") for name, made in fusion.companions.items()}
    assert kinds == {"extractors/classifier-maps": "plain-maps", "extractors/pixels": "pixels", "ratios/ratio": None}
    assert fusion.evidence["calibrated"] < fusion.evidence["calibrated_mixture"]


def test_pixels_that_judge_are_not_looked_at():
    fusion = strategy("ratio")(looking(judges=("pixels",)))
    assert list(fusion.recipe["companions"]) == ["ratio", "classifier-maps", "selfsup"]


def test_a_pool_of_one_is_enough():
    fusion = strategy("ratio")(looking(names=("a/r0/1",)))
    assert fusion.recipe["source"]["parts"] == [{"kind": "candidate", "id": "a/r0/1"}]


def test_the_sampler_accepts_as_stated_and_is_nearer_by_what_decides():
    given = looking()
    fusion = strategy("ratio")(given)
    stored = {name: made.network for name, made in fusion.companions.items()}
    load = Loader(
        given.material.generator,
        given.material.discriminator,
        lambda name: stored.get(name) or given.material.extractor(name.partition("/")[2])[1],
    )
    sampler = build_sampler(fusion.recipe, load)
    mixture = build_sampler(strategy("weighted")(given).recipe, load)
    with torch.inference_mode():
        rated = sampler.ratio(mixture.at(torch.arange(600), 3))
    assert rated.clamp(max=0).exp().mean().item() == pytest.approx(fusion.evidence["acceptance"], abs=0.06)
    for place, (ruler, real) in enumerate(zip(given.rulers, given.real.views, strict=True)):
        network = given.material.extractor(ruler.extractor)[1]
        found = [moments(ruler.relative(outputs_of(network, draw(s, 600, seed=4)))) for s in (sampler, mixture)]
        assert distance(found[0], real) < distance(found[1], real), place


def test_extractors_that_are_not_ours_are_refused():
    foreign = (replace(RULERS[0], extractor="inception-v3-compat"), RULERS[1])
    with pytest.raises(NotApplicableError, match="pack inception-v3-compat"):
        strategy("ratio")(problem(foreign))


def test_images_that_all_look_alike_need_no_ratio():
    given = problem(count=60)
    alike = tuple(np.zeros_like(x) for x in given.real.features)
    pool = tuple(replace(candidate, read=lambda: alike) for candidate in given.pool)
    with pytest.raises(NotApplicableError, match="is 0: there is nothing to tilt"):
        strategy("ratio")(replace(given, pool=pool, real=Real(alike)))


def test_real_images_need_no_ratio():
    """What nothing can be gained from is said, and no wrong ratio is delivered."""
    given = problem(count=400)
    same = tuple(replace(c, read=lambda: given.real.features, views=given.real.views) for c in given.pool)
    with pytest.raises(NotApplicableError, match="not every extractor finds"):
        strategy("ratio")(Problem.of(same, given.real, Fusion(), 1, None, RULERS))


def test_too_few_images_are_refused():
    with pytest.raises(NotApplicableError, match="too few"):
        strategy("ratio")(problem(count=4))
