import numpy as np
import pytest

from pipeline.evaluation.ruler import Real
from pipeline.files import write_json
from pipeline.fusion.diversity import diversity, plain_mixtures
from pipeline.fusion.strategies._base import Candidate, Problem, combine
from pipeline.params import Fusion


def candidate(name, samples):
    return Candidate.of(name, None, lambda: (samples,))


def problem(pool, held_out):
    """Fitted on what is of no matter here."""
    return Problem.of(tuple(pool), held_out.take(np.arange(9)), Fusion(), held_out=held_out)


def test_kid_is_mean_minus_ambiguity_and_opposite_members_gain_most():
    random = np.random.default_rng(0)
    shifts = {"a/r0/1": -0.6, "b/r0/1": 0.6, "c/r0/1": -0.6}
    pool = [candidate(name, random.normal(size=(500, 2)) / 2 + [shift, 0]) for name, shift in shifts.items()]
    real = Real((random.normal(size=(300, 2)) / 2,))
    mixtures = {"apart": {"a/r0/1": 0.5, "b/r0/1": 0.5}, "alike": {"a/r0/1": 0.5, "c/r0/1": 0.5}}
    told = diversity(problem(pool, real), ["a/r0/1", "b/r0/1"], mixtures)
    for row in told["mixtures"]:
        assert row["kid"] == pytest.approx(row["mean"] - row["ambiguity"])
    apart, alike = told["mixtures"]
    assert apart["ambiguity"] > 10 * abs(alike["ambiguity"])
    assert told["images"] == 300
    assert np.array(told["correlation"]).shape == (2, 2)
    assert told["correlation"][0][1] < 0


def test_what_cannot_be_told_is_null_and_can_be_written(tmp_path):
    real = np.random.default_rng(0).normal(size=(20, 2))
    told = diversity(problem([candidate("a/r0/1", real)], Real((real,))), ["a/r0/1"], {"m": {"a/r0/1": 1.0}})
    assert told["correlation"] == [[None]]
    assert told["mixtures"][0]["ambiguity"] == pytest.approx(0)
    write_json(tmp_path / "told.json", told)


def test_mixtures_of_candidates_are_found_and_nested_ones_left_out():
    plain = combine("mixture", {"a": 0.25, "b": 0.75})
    rows = [
        {"name": "plain", "recipe": plain},
        {"name": "nested", "recipe": {"kind": "mixture", "weights": [1.0], "parts": [plain]}},
        {"name": "average", "recipe": combine("average", {"a": 1.0})},
        {"name": "best", "recipe": {"kind": "candidate", "id": "a"}},
        {"name": "vote", "skipped": "no critics"},
    ]
    assert plain_mixtures(rows) == {"plain": {"a": 0.25, "b": 0.75}}
