"""The model card: whole, escaped, and short enough for the registry."""

from typing import Any

import pytest

from pipeline.report.card import card, class_shares, code, limits, line, shortened, weak_classes
from tests.report.facts import facts, metrics


def made(**other: Any) -> str:
    from_run = facts()
    told: dict[str, Any] = {
        "metrics": from_run.metrics,
        "gate": None,
        "strategies": from_run.strategies,
        "recipe": from_run.recipe,
        "manifest": from_run.manifest,
        "failed": {"dcgan-hinge/r1": "loss_g exploded to 3.1e+04"},
        "lineage": from_run.lineage,
    }
    return card("chorus", **told | other)


def test_card_tells_data_members_fusion_metrics_and_limits() -> None:
    text = made()
    assert [title for title in text.splitlines() if title.startswith("#")] == [
        "# chorus: `weighted`",
        *(f"## {name}" for name in ("What it is", "Data", "Members", "Fusion", "Metrics on the gate images")),
        "## Limits",
        "## Lineage",
    ]
    for words in (
        "Both judges find the fusion nearer",
        "grey images of 8×8 pixels like those of `digits`",
        "an image costs 1 network pass.",
        "| gate | 270 | the numbers below |",
        "Classes, with their share of the training images: `0` 10.0 %, `1` 10.0 %",
        "| `dcgan/r0/000200000` | 46.0 % |",
        "`dcgan-hinge/r1` failed in training: loss_g exploded to 3.1e+04",
        "- `vote`: no candidate has a discriminator",
        "| `fd16_classifier-b` | 5.27 | 6.69 | 1.16 | -1.71 to -1.12 |",
        "A fresh classifier tells 87.4% of its images",
        f"- commit: `{'0f' * 20}`",
    ):
        assert words in text
    assert "\n\n\n" not in text
    tables = [rows for rows in text.split("\n\n") if rows.startswith("|")]
    assert all(len({row.count(" | ") for row in rows.splitlines() if "---" not in row}) == 1 for rows in tables)


def test_card_says_which_rules_of_the_gate_failed() -> None:
    rules = [
        {"name": "megabytes", "verdict": "failed", "why": "3.1 MB; at most 2.5"},
        {"name": "smoke", "verdict": "passed", "why": "loads"},
    ]
    assert "**Gate: not passed**: megabytes (3.1 MB; at most 2.5)\n" in made(gate={"passed": False, "rules": rules})
    assert "**Gate: passed**\n" in made(gate={"passed": True, "rules": rules[1:]})


def test_text_from_outside_stays_text() -> None:
    evil = "<img src=x onerror=alert(1)> [a](http://b) `c` | d\n# e"
    from_run = facts()
    text = made(
        manifest={**from_run.manifest, "source": evil, "classes": [evil], "class_counts": {"train": [3]}},
        failed={evil: evil},
        lineage={"commit": evil},
    )
    outside_of_code = "".join(text.split("`")[::2])
    assert "<img" not in outside_of_code
    assert "[a](" not in outside_of_code
    assert "\n# e" not in text
    assert code("a`b|c") == "`aʼb\\|c`"
    assert line("*a* _b_ c_d <e>\nf") == "\\*a\\* \\_b\\_ c_d &lt;e&gt; f"


def test_secrets_are_taken_out_before_anything_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "p*a_s<s>|`w"
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", secret)
    text = made(failed={"a/r0": f"with {secret}"}, lineage={"commit": secret})
    assert "`a/r0` failed in training: with \\*\\*\\*\n" in text
    assert "- commit: `***`" in text
    assert line(f"{secret}!") == "\\*\\*\\*!"


def test_shares_of_classes_are_those_of_the_training_images() -> None:
    manifest = {"classes": ["a", "b"], "class_counts": {"train": [1, 3], "val": [9, 9]}}
    assert class_shares(manifest) == [("b", 0.75), ("a", 0.25)]
    assert class_shares({"classes": None, "class_counts": None}) == []


def test_limits_name_copies_weak_classes_and_warnings() -> None:
    judged = metrics()
    assert judged["warnings"][0] in limits(judged)
    assert not any("copies" in limit for limit in limits(judged))
    judged["memorisation"][1]["suspicious"] = True
    judged["classes"]["rows"][1]["coverage"][4] = 0.1
    assert any("look for copies" in limit for limit in limits(judged))
    assert weak_classes(judged["classes"]) == ["4"]
    assert weak_classes(None) == []


@pytest.mark.parametrize("limit", [400, 1500, 5000])
def test_a_long_card_ends_with_a_whole_section(limit: int) -> None:
    text = made()
    cut = shortened(text, limit)
    assert len(cut) <= limit or limit < 400
    if len(text) > limit:
        assert cut.endswith("among the artefacts of the version's run.\n")
        kept = cut.rpartition("\n\nThe rest")[0]
        assert text.startswith(kept)
        assert text[len(kept) :].lstrip().startswith("## ")
    else:
        assert cut == text
