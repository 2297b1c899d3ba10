"""The strategy `latent_ratio`: a density ratio told from latents, on top of the nearest candidate."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.evaluation.frechet import distance, moments
from pipeline.fusion.kinds import Loader, build_sampler
from pipeline.fusion.samplers import draw
from pipeline.fusion.sights import outputs_of
from pipeline.fusion.strategies._base import NotApplicableError, strategy
from pipeline.fusion.strategies.latent_ratio import NAME, correlation
from pipeline.models._base import build_generator
from tests.fusion.factories import CONFIG, built
from tests.fusion.test_ratio_strategy import looking, problem


@pytest.fixture(scope="module")
def made():
    given = looking(200)
    return given, strategy(NAME)(given)


def sampler_of(given, fusion):
    networks = {name: companion.network for name, companion in fusion.companions.items()}
    return build_sampler(fusion.recipe, Loader(given.material.generator, given.material.discriminator, networks.get))


def test_one_network_and_what_rates_its_latents_are_all_that_is_delivered(made):
    given, fusion = made
    assert fusion.recipe["source"] == strategy("best")(given).recipe
    assert list(fusion.companions) == ["raters/latent_ratio"]
    assert fusion.evidence["weights"] == {fusion.recipe["source"]["id"]: 1.0}
    assert fusion.evidence["told"] > 0.5
    assert fusion.evidence["calibrated"] < fusion.evidence["calibrated_mixture"]


def test_fresh_images_are_nearer_by_what_decides_and_latents_kept_as_stated(made):
    given, fusion = made
    sampler = sampler_of(given, fusion)
    plain = sampler.source
    for place, (ruler, real) in enumerate(zip(given.rulers, given.real.views, strict=True)):
        network = given.material.extractor(ruler.extractor)[1]
        found = [moments(ruler.relative(outputs_of(network, draw(s, 1000, seed=4)))) for s in (sampler, plain)]
        assert distance(found[0], real) < distance(found[1], real), place
    z = torch.randn(4000, plain.latent, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        kept = sampler.rater(z).clamp(max=0).exp().mean().item()
    assert kept == pytest.approx(fusion.evidence["acceptance"], abs=0.06)
    assert fusion.evidence["acceptance"] >= given.settings.min_acceptance


def test_it_is_made_to_the_same_bits_again(made):
    _, fusion = made
    torch.manual_seed(1)
    again = strategy(NAME)(looking(200))
    assert again.recipe == fusion.recipe
    for name, value in again.companions["raters/latent_ratio"].network.state_dict().items():
        assert torch.equal(value, fusion.companions["raters/latent_ratio"].network.state_dict()[name])


def test_a_pool_of_one_is_enough():
    fusion = strategy(NAME)(looking(200, names=("a/r0/1",)))
    assert fusion.recipe["source"] == {"kind": "candidate", "id": "a/r0/1"}


def test_a_conditional_generator_is_rated_with_its_classes_and_can_be_asked_for_them():
    given = looking(200)
    config = replace(CONFIG, class_shares=(0.2, 0.3, 0.5))
    asked = replace(given.material, generator=lambda name: built(build_generator, name, config))
    fusion = strategy(NAME)(replace(given, material=asked))
    assert fusion.companions["raters/latent_ratio"].config["inputs"] == config.latent + 3
    sampler = sampler_of(replace(given, material=asked), fusion)
    labels = torch.arange(12) % 3
    images = draw(sampler, 12, seed=1, labels=labels)
    assert torch.equal(images, draw(sampler, 12, seed=1, labels=labels))
    assert not torch.equal(images, draw(sampler, 12, seed=1, labels=(labels + 1) % 3))


def test_features_alone_have_no_latents():
    with pytest.raises(NotApplicableError, match="no generators whose latents"):
        strategy(NAME)(problem())


def test_extractors_that_are_not_ours_decide_without_being_looked_into_or_packed():
    given = looking(200)
    networks = {r.extractor: given.material.extractor(r.extractor)[1] for r in given.rulers}
    seen = []

    def features(images):
        seen.append(len(images))
        return tuple(r.relative(outputs_of(networks[r.extractor], images)) for r in given.rulers)

    foreign = tuple(replace(r, extractor=f"foreign-{r.extractor}") for r in given.rulers)
    fusion = strategy(NAME)(replace(given, rulers=foreign, material=replace(given.material, features=features)))
    assert list(fusion.companions) == ["raters/latent_ratio"]
    assert fusion.evidence["calibrated"] < fusion.evidence["calibrated_mixture"]
    assert sum(seen) == 200 * (1 + 4 + 10)  # the real images, those that the ratio is fitted on, those that are rated


def test_order_alone_counts_for_what_is_told():
    true = np.array([1.0, 2.0, 5.0, 3.0])
    assert correlation(np.exp(true), true) == pytest.approx(1)
    assert correlation(-true, true) == pytest.approx(-1)
