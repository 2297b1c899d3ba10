"""What the judge stage writes about how sure its distances are."""

import json

import numpy as np
import pytest

from pipeline.evaluation.certainty import estimates_of, intervals_of
from pipeline.evaluation.features import Features
from pipeline.evaluation.ruler import Ruler, fit_ruler

ARMS = [
    {"name": "a/r0", "kind": "member"},
    {"name": "a/r1", "kind": "member"},
    {"name": "best", "kind": "strategy"},
    {"name": "weighted", "kind": "strategy"},
]
# What multiplies the images of each arm; "best" is the best member drawn anew.
SCALES = (1.5, 2.0, 1.5, 1.05)


def features(n: int, seed: int, scale: float = 1.0) -> Features:
    return Features((np.random.default_rng(seed).normal(size=(n, 8)) * scale).astype(np.float32))


@pytest.fixture(scope="module")
def written() -> dict:
    real = {"judge": features(600, 0), "few": features(30, 1)}
    rulers = {"judge": fit_ruler("judge", features(900, 2).values, 4), "few": Ruler("few", None, "fd_few", 1.0)}
    estimates = [
        estimates_of({"judge": features(500, 10 + i, scale), "few": features(500, 20 + i)}, real, rulers, list(real))
        for i, scale in enumerate(SCALES)
    ]
    return intervals_of(ARMS, estimates, "a/r0")


def test_every_arm_is_told_and_a_judge_with_too_few_images_left_out(written: dict) -> None:
    assert [{key: arm[key] for key in ("name", "kind")} for arm in written["arms"]] == ARMS
    assert all(set(arm["distances"]) == {"fd4_judge"} for arm in written["arms"])
    assert [set(arm["differences"]) for arm in written["arms"]] == [set(), *[{"fd4_judge"}] * 3]


def test_differences_are_against_the_best_member(written: dict) -> None:
    worse, same, better = (arm["differences"]["fd4_judge"] for arm in written["arms"][1:])
    assert worse["low"] > 0
    assert worse["beyond_noise"]
    assert same["low"] < 0 < same["high"]
    assert not same["beyond_noise"]
    assert better["high"] < 0
    distances = [arm["distances"]["fd4_judge"]["value"] for arm in written["arms"]]
    assert better["value"] == pytest.approx(distances[3] - distances[0])


def test_it_is_json_of_plain_numbers(written: dict) -> None:
    assert json.loads(json.dumps(written, allow_nan=False)) == written
