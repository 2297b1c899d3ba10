"""The sections `budget` and `racing`: what is refused, and with which remedy."""

from pathlib import Path

import pytest
import yaml

from pipeline.errors import ChorusError
from pipeline.params import Params, parse_params

TEXT = (Path(__file__).parents[2] / "params.yaml").read_text()
LATER = [{"rung": 2, "after": 1}]
NUMBER = 5  # of families in params.yaml
SHARED = {"kimg": 100, "families": NUMBER}


def with_sections(**sections) -> Params:
    return parse_params(yaml.safe_dump({**yaml.safe_load(TEXT), **sections}))


def test_the_repository_shares_no_budget_and_races_nobody() -> None:
    params = parse_params(TEXT)
    assert params.budget is None
    assert params.racing.rungs == []


@pytest.mark.parametrize(
    ("sections", "parts"),
    [
        ({"budget": {"kimg": 100, "families": 3}}, ["budget.families = 3", f"set it to {NUMBER}", "trained anew"]),
        ({"budget": {"kimg": 100}}, ["budget.families", "missing"]),
        ({"budget": {"kimg": 100, "tflop": 100, "families": NUMBER}}, ["either 'kimg' or 'tflop'"]),
        ({"budget": {"families": NUMBER}}, ["either 'kimg' or 'tflop'"]),
        ({"budget": {"kimgs": 100, "families": NUMBER}}, ["budget.kimgs", "unknown key", "tflop"]),
        ({"racing": {"rungs": LATER}}, ["set 'budget'", f"{{kimg: 2000, families: {NUMBER}}}"]),
        ({"racing": {"rungs": [{**LATER[0], "keep": 1}]}}, ["racing.rungs.0.keep: unknown key", "rung, after"]),
        ({"racing": {"rungs": [2]}}, ["racing.rungs.0 = 2: a section of keys", "rung, after"]),
        ({"racing": {"branch": 2}}, ["'branch'", "'rungs' names none"]),
        ({"budget": SHARED, "racing": {"rungs": [{"rung": 3, "after": 2}]}}, ["[{rung: 2, after: 1}]"]),
        ({"budget": SHARED, "racing": {"rungs": [*LATER, *LATER]}}, ["{rung: 3, after: 2}"]),
        ({"budget": SHARED, "racing": {"rungs": LATER, "keep": 1.0}}, ["racing.keep = 1.0", "less than 1"]),
        ({"budget": SHARED, "racing": {"rungs": LATER, "keep": "all"}}, ["racing.keep = 'all'", "auto"]),
    ],
)
def test_wrong_sections_are_refused_with_the_remedy(sections, parts) -> None:
    with pytest.raises(ChorusError) as error:
        with_sections(**sections)
    assert all(part in str(error.value) for part in parts), error.value


def families(**changes) -> dict:
    content = yaml.safe_load(TEXT)["families"]
    content["dcgan"] = {**content["dcgan"], **changes}
    return content


def test_a_family_needs_images_unless_a_budget_is_shared() -> None:
    without = families()
    del without["dcgan"]["kimg"]
    with pytest.raises(ChorusError, match=r"families\.dcgan\.kimg: missing; say how long"):
        with_sections(families=without)
    assert with_sections(families=without, budget=SHARED).families["dcgan"].kimg == 0


def test_only_members_that_train_alone_are_raced() -> None:
    with pytest.raises(ChorusError, match=r"families\.dcgan\.scheme = 'boosting': only members that train alone"):
        with_sections(families=families(scheme="boosting"), budget=SHARED, racing={"rungs": LATER})
    assert with_sections(families=families(scheme="bagging"), budget=SHARED, racing={"rungs": LATER})


def test_families_that_are_to_be_foretold_need_two_snapshots() -> None:
    alone = families(snapshots=1)
    with pytest.raises(ChorusError, match=r"keep = 'auto' reads .* set families\.dcgan\.snapshots to 2 or more"):
        with_sections(families=alone, budget=SHARED, racing={"rungs": LATER})
    assert with_sections(families=alone, budget=SHARED, racing={"rungs": LATER, "keep": 0.5}).racing.keep == 0.5
    assert with_sections(families=alone).racing.keep == "auto"
