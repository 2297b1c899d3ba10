"""Averages of weights as a strategy: what is averaged with what, the statistics that fit it, and which is chosen."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.evaluation.ruler import Real
from pipeline.fusion.samplers import CandidateSampler, draw
from pipeline.fusion.strategies import soup
from pipeline.fusion.strategies._base import Candidate, NotApplicableError, Problem, strategy
from pipeline.models._base import ModelConfig, build_generator
from pipeline.params import Fusion
from tests.fusion.factories import averages, built, features, images, material

DCGAN = ModelConfig("dcgan", 1, 8, 4, 4)


def pool_of(*names):
    """Candidates, each farther from the real images than the one before."""
    real = features(images(60, 1)[0])
    seen = {name: Real(tuple(part + 0.1 * place for part in real)) for place, name in enumerate(names)}
    return tuple(Candidate(name, own.views, None, lambda own=own: own.features) for name, own in seen.items())


def problem(*names, config=None, profiles=averages, **settings):
    given = material(profiles=profiles) if config is None else material(config=config, profiles=profiles)
    return Problem.of(pool_of(*names), Real(features(images(60, 1)[0])), Fusion(**settings), material=given)


def tried(given):
    return strategy("soup")(given).evidence["averages"]


def test_of_one_snapshot_that_stored_one_average_it_is_that_average():
    of = averages("a/r0/5")
    fusion = strategy("soup")(problem("a/r0/5", profiles=lambda name: {0.05: of[0.05]}))
    assert list(fusion.evidence["averages"]) == ["soup/a-r0/000000005-050"]
    (made,) = fusion.snapshots.values()
    assert made.source == "a/r0/5"
    for name, parameter in made.generator.named_parameters():
        torch.testing.assert_close(parameter, of[0.05][name], rtol=0, atol=0)


def test_equal_siblings_average_to_themselves_and_draw_the_same_images():
    given = problem("a/r0b1/5", "a/r0b2/5", config=DCGAN, profiles=lambda name: {})
    one = built(build_generator, "one", DCGAN)
    given = replace(
        given, material=replace(given.material, generator=lambda name: built(build_generator, "one", DCGAN))
    )
    (made,) = strategy("soup")(given).snapshots.values()
    for mine, own in zip(made.generator.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(mine, own, rtol=0, atol=0)
    settled = soup.network_of(soup.mean_of(given.pool[:1], given.material), given, given.material)
    drawn, same = (draw(CandidateSampler(network), 40, seed=0) for network in (made.generator, settled))
    assert torch.equal(drawn, same)


def test_statistics_that_belong_to_other_weights_are_measured_anew():
    """Broken running means and variances change the images; what is made of the snapshot draws as with sound ones."""

    def broken(name):
        network = built(build_generator, name, DCGAN)
        for buffer in network.buffers():
            if buffer.is_floating_point():
                buffer.add_(3)
        return network

    given = problem("a/r0/5", config=DCGAN)
    average = soup.mean_of(given.pool[:1], given.material)
    sound = soup.network_of(average, given, given.material)
    restored = soup.network_of(average, given, replace(given.material, generator=broken))
    drawn = [draw(CandidateSampler(network), 64, seed=0) for network in (sound, restored, broken("a/r0/5"))]
    assert torch.equal(drawn[0], drawn[1])
    assert (drawn[0].float() - drawn[2].float()).abs().mean() > 1
    # Its layers normalise: over many latents the maps after each of them have mean 0 and deviation 1.
    z = torch.randn(2000, 4, generator=torch.Generator().manual_seed(1))
    seen = []
    norms = [module for module in restored.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    norms[0].register_forward_hook(lambda module, given, out: seen.append(out - module.bias[:, None, None]))
    with torch.no_grad():
        restored(z)
    scale = norms[0].weight.detach()
    torch.testing.assert_close(seen[0].mean((0, 2, 3)), torch.zeros(len(scale)), atol=0.1, rtol=0)
    torch.testing.assert_close(seen[0].std((0, 2, 3)), scale.abs(), atol=0.1, rtol=0.1)


def test_averages_end_at_the_nearest_and_at_the_last_snapshot_of_the_nearest_member():
    found = tried(problem("a/r0/400", "a/r0/200", "b/r0/300", "a/r0/800"))
    assert {name.rpartition("-")[0] for name in found} == {"soup/a-r0/000000400", "soup/a-r0/000000800"}
    for about in found.values():
        assert about["missing"] <= soup.MISSING
        assert about["source"] == f"a/r0/{about['nimg']}"
    # The paper's widths are stored, so nothing of them is missing.
    assert found["soup/a-r0/000000800-050"]["missing"] < 1e-6
    assert {about["sigma_rel"] for about in found.values()} >= {0.05, 0.07, 0.1}


def test_more_members_when_asked_for_and_those_without_averages_are_passed_over():
    names = ("a/r0/1", "b/r0/1", "c/r0/1")

    def some(name):
        return {} if name.startswith("a") else averages(name)

    def members(**settings):
        return {name.split("/")[1] for name in tried(problem(*names, profiles=some, **settings))}

    assert members() == {"b-r0"}
    assert members(soup_members=5) == {"b-r0", "c-r0"}


def test_siblings_of_one_ancestor_are_averaged_and_no_others():
    given = problem("a/r0b1/7", "a/r0b2/7", "a/r0/9", "a/r1b1/7", "b/r0b1/7", "b/r1/9", profiles=lambda name: {})
    found = tried(given)
    assert {name: about["parts"] for name, about in found.items()} == {
        "soup/a-r0b1/000000007-mean2": ["a/r0b1/7", "a/r0b2/7"],
        "soup/a-r0b1/000000007-mean3": ["a/r0b1/7", "a/r0b2/7", "a/r0/9"],
    }
    mean = soup.mean_of(given.pool[:2], given.material).weights
    parts = [dict(given.material.generator(name).named_parameters()) for name in ("a/r0b1/7", "a/r0b2/7")]
    for name, value in mean.items():
        torch.testing.assert_close(value, (parts[0][name] + parts[1][name]) / 2)


@pytest.mark.parametrize("names", [("a/r0/1",), ("a/r0/1", "a/r1/1", "b/r0/1"), ("a/r0b1/1", "a/r1b1/1")])
def test_weights_that_were_initialised_apart_are_not_averaged(names):
    with pytest.raises(NotApplicableError, match="ema_profiles"):
        strategy("soup")(problem(*names, profiles=lambda name: {}))


def test_an_average_that_draws_no_numbers_is_left_out():
    def broken(name):
        of = averages(name)
        return of if "4" in name else {width: {n: w * torch.nan for n, w in own.items()} for width, own in of.items()}

    found = tried(problem("a/r0/400", "a/r0/800", profiles=broken))
    assert {about["nimg"] for about in found.values()} == {400}
    with pytest.raises(NotApplicableError, match=r"no average draws images: soup/a-r0/.*: the generator puts out NaN"):
        strategy("soup")(problem("a/r0/500", profiles=broken))


def test_without_networks_it_says_so():
    with pytest.raises(NotApplicableError, match="no networks"):
        strategy("soup")(replace(problem("a/r0/1"), material=None))


def test_the_nearest_is_chosen_by_samples_of_its_own_and_a_second_run_gives_the_same():
    given = problem("a/r0/400", "a/r0/800")
    first, second = (strategy("soup")(given) for _ in range(2))
    assert first.recipe == second.recipe
    assert first.evidence == second.evidence
    (chosen,) = first.snapshots
    assert first.recipe == {"kind": "candidate", "id": chosen}
    fits = {name: about["fit"] for name, about in first.evidence["averages"].items()}
    assert first.evidence["fit"] == fits[chosen] == min(fits.values())
    assert len(set(fits.values())) == len(fits)
    made = first.snapshots[chosen].generator
    assert np.isclose(soup.measured(made, given, given.material), fits[chosen])
