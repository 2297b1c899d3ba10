"""Who wins: by cost, distance and noise, on samples of normal distributions whose distances are known."""

import numpy as np
import pytest

from pipeline.evaluation.features import Features
from pipeline.evaluation.intervals import estimate
from pipeline.evaluation.ruler import Ruler
from pipeline.fusion.choice import Entrant, choose, verdict

RULERS = (Ruler("first", None, "fd_first", 1.0), Ruler("second", None, "fd_second", 1.0))
COUNT = 2000


def features(shift: float, seed: int) -> Features:
    values = np.random.default_rng(seed).normal(size=(COUNT, 3)) + np.array([shift, 0, 0])
    return Features(values.astype(np.float32))


def entrant(name: str, cost: float, *shifts: float) -> Entrant:
    """A strategy whose samples miss the real images by these shifts, as the rulers see them."""
    real = features(0, 0)
    seeds = [sum(map(ord, name)) + place for place in range(len(shifts))]
    found = tuple(
        estimate(features(shift, seed), real, ruler) for shift, seed, ruler in zip(shifts, seeds, RULERS, strict=True)
    )
    return Entrant(name, cost, float(np.mean([one.measured for one in found])), found)


def test_at_the_same_cost_the_nearest_wins() -> None:
    near, far = entrant("near", 1.02, 0.5, 0.5), entrant("far", 1.0, 0.55, 0.5)
    assert choose([far, near]) is near
    assert verdict(far, near, [far, near]) == "near is nearer at the same cost"
    assert verdict(near, near, [far, near]) == "the winner"


def test_what_costs_more_wins_only_beyond_the_noise_by_every_ruler() -> None:
    cheap, sure = entrant("cheap", 1, 0.5, 0.5), entrant("sure", 4, 0.2, 0.2)
    assert choose([sure, cheap]) is sure
    assert verdict(cheap, sure, [sure, cheap]) == "sure is nearer beyond the noise"
    by_one, hardly = entrant("by one", 4, 0.1, 0.5), entrant("hardly", 4, 0.49, 0.49)
    assert by_one.distance < cheap.distance
    everyone = [cheap, by_one, hardly]
    assert choose(everyone) is cheap
    told = "not surely nearer than cheap by every ruler, and costs more"
    assert verdict(by_one, cheap, everyone) == verdict(hardly, cheap, everyone) == told


def test_a_costly_leader_is_itself_to_be_beaten_beyond_the_noise() -> None:
    cheap, costly = entrant("cheap", 1, 0.6, 0.6), entrant("costly", 4, 0.2, 0.2)
    assert choose([cheap, costly, entrant("costlier", 9, 0.19, 0.2)]) is costly
    assert choose([cheap, entrant("worse", 4, 0.3, 0.3), costly]) is costly


def test_who_costs_as_much_as_the_leader_has_to_beat_what_is_cheaper_too() -> None:
    cheap, sure, by_one = entrant("a", 1, 1.0, 1.0), entrant("b", 4.0, 0.8, 0.8), entrant("c", 4.1, 0.3, 1.05)
    everyone = [cheap, sure, by_one]
    assert by_one.distance < sure.distance
    assert choose(everyone) is sure
    assert verdict(by_one, sure, everyone) == "not surely nearer than a by every ruler, and costs more"


def test_what_lost_to_a_cheaper_one_is_to_be_beaten_all_the_same() -> None:
    # The second is not surely nearer than the first, and the third not surely nearer than the second.
    everyone = [entrant("first", 1, 0.6, 0.6), entrant("second", 2, 0.36, 0.6), entrant("third", 4, 0.4, 0.4)]
    first, second, third = everyone
    assert not second.surely_nearer(first)
    assert third.surely_nearer(first)
    assert not third.surely_nearer(second)
    assert choose(everyone) is first
    assert verdict(third, first, everyone) == "not surely nearer than second by every ruler, and costs more"


def test_small_steps_in_cost_lead_no_further_than_the_tolerance() -> None:
    same = entrant("0", 1, 0.5, 0.5).estimates
    everyone = [Entrant(str(step), 1.04**step, 1.0 - step / 100, same) for step in range(11)]
    assert choose(everyone).name == "1"


def test_without_intervals_what_costs_more_never_wins() -> None:
    cheap, costly = Entrant("cheap", 1, 9.0, None), Entrant("costly", 2, 1.0, None)
    assert choose([cheap, costly]) is cheap
    told = "costs more than cheap, and there are too few images to be sure that it is nearer"
    assert verdict(costly, cheap, [cheap, costly]) == told


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_equals_go_by_cost_and_then_by_name(names: tuple[str, str]) -> None:
    same = [Entrant(name, 1, 2.0, None) for name in names]
    assert choose(same).name == "a"
    assert choose([*same, Entrant("0", 1.01, 2.0, None)]).name == "a"
